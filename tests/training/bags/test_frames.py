"""Small pictures of a recording: near to the large ones scaled, and refused by the same rules."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import CameraSpec
from fastvla_core.robot.decode import decode_camera
from training.bags import messages
from training.bags.frames import PendingFrame, scaled_down

CAMERA = CameraSpec(
    name="front", topic="front", encoding="rgb8", width=160, height=120, transport="compressed"
)


def picture(height: int = 120, width: int = 160) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    noise = np.random.default_rng(1).integers(0, 12, (height, width, 3), np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), noise)


def frame(data: bytes, *, format: str = "jpeg") -> PendingFrame:
    types = messages.typestore().types
    header = types["std_msgs/msg/Header"](stamp=messages.stamp_of(1), frame_id="")
    message = types[messages.COMPRESSED_IMAGE](
        header=header, format=format, data=np.frombuffer(data, np.uint8)
    )
    return PendingFrame(CAMERA, message)


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@pytest.mark.parametrize("size", [(60, 80), (42, 56), (30, 40), (9, 12), (100, 133), (120, 40)])
def test_a_small_picture_is_near_the_large_one_scaled(size):
    pending = frame(jpeg(picture()))
    whole = decode_camera(CAMERA, pending.message)
    small = pending.pixels(size=size)
    assert small.shape == (*size, 3)
    difference = np.abs(small.astype(int) - scaled_down(whole, size=size))
    # What JPEG itself changes is 2.0 in the mean.
    assert difference.mean() < 1.2
    # Above a half, nothing is left out in unpacking.
    assert (2 * size[0] <= 120 and 2 * size[1] <= 160) or not difference.any()


def test_no_large_picture_is_made_first(monkeypatch):
    monkeypatch.setattr("training.bags.frames.decode_camera", lambda *given: pytest.fail("made"))
    assert frame(jpeg(picture())).pixels(size=(42, 56)).shape == (42, 56, 3)


def test_files_that_only_their_message_explains_are_scaled_after_it():
    pixels = picture()
    pending = frame(jpeg(pixels), format="rgb8; jpeg compressed rgb8")
    whole = decode_camera(CAMERA, pending.message)
    assert np.array_equal(pending.pixels(size=(42, 56)), scaled_down(whole, size=(42, 56)))
    packed = cv2.imencode(".png", pixels)[1].tobytes()
    small = frame(packed, format="png").pixels(size=(42, 56))
    assert np.array_equal(small, scaled_down(pixels[..., ::-1], size=(42, 56)))
    grey = frame(jpeg(pixels[..., 1])).pixels(size=(42, 56))
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (jpeg(picture(122, 160)), "160x122"),
        (jpeg(picture())[:-40], "cut short"),
        (jpeg(picture())[:60] + bytes(2000) + b"\xff\xd9", "neither JPEG nor PNG"),
    ],
    ids=["of another size", "cut", "damaged"],
)
def test_a_small_picture_is_refused_as_the_large_one(data, problem):
    pending = frame(data)
    for size in (None, (42, 56)):
        with pytest.raises(MessageError, match=problem):
            pending.pixels(size=size)
