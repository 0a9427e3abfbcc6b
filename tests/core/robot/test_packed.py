"""JPEG files become the same pixels whoever unpacks them, live, from recordings and from caches."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot import packed
from fastvla_core.robot.decode import decode_compressed
from fastvla_core.robot.packed import unpack_color_jpeg, unpack_rgb_into

pytest.importorskip("simplejpeg")

SAMPLINGS = {
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
# Orientation 6: the camera was held upright.
EXIF = bytes.fromhex("ffe1002245786966000049492a0008000000010012010300010000000600000000000000")


def picture(height: int = 41, width: int = 57) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    noise = np.random.default_rng(1).integers(0, 12, (height, width, 3), np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), noise)


def jpeg(pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", pixels, list(options))[1].tobytes()


COLOUR_FILES = {
    **{
        f"sampled {name}": jpeg(picture(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, value)
        for name, value in SAMPLINGS.items()
    },
    "progressive": jpeg(picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarting": jpeg(picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "of low quality": jpeg(picture(), cv2.IMWRITE_JPEG_QUALITY, 12),
    "of one pixel": jpeg(picture(1, 1)),
    "padded": jpeg(picture()) + bytes(100),
    "upright": jpeg(picture())[:2] + EXIF + jpeg(picture())[2:],
}


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_both_decoders_give_the_same_pixels(kind: str):
    data = COLOUR_FILES[kind]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    for order, pixels in (("BGR", expected), ("RGB", expected[..., ::-1])):
        got = unpack_color_jpeg(data, order=order)
        # OpenCV is asked for what is rare.
        assert got is not None or kind == "sampled 411"
        if got is not None:
            assert np.array_equal(got, pixels)


@pytest.mark.parametrize("kind", COLOUR_FILES)
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_smaller_pictures_are_those_of_opencv(kind: str, divisor: int):
    data = COLOUR_FILES[kind]
    flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{divisor}") | cv2.IMREAD_IGNORE_ORIENTATION
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    got = unpack_color_jpeg(data, order="BGR", divisor=divisor)
    assert got is not None or kind == "sampled 411"
    if got is not None:
        assert np.array_equal(got, expected)


def test_a_file_of_another_size_is_not_unpacked():
    data = jpeg(picture())
    assert unpack_color_jpeg(data, size=(41, 57), divisor=2).shape == (21, 29, 3)
    assert unpack_color_jpeg(data, size=(41, 58), divisor=2) is None
    assert unpack_color_jpeg(data, size=(57, 41)) is None


def grey() -> bytes:
    return jpeg(picture()[..., 0].copy())


@pytest.mark.parametrize("kind", [*COLOUR_FILES, "grey"])
@pytest.mark.parametrize("format", ["jpeg", "bgr8; jpeg compressed bgr8"])
def test_messages_and_caches_hold_what_opencv_alone_would_give(
    kind: str, format: str, monkeypatch: pytest.MonkeyPatch
):
    data = grey() if kind == "grey" else COLOUR_FILES[kind]
    got = decode_compressed(data, format=format, where="camera 'front'")
    cached = np.empty_like(got)
    assert unpack_rgb_into(cached, np.frombuffer(data, np.uint8))
    monkeypatch.setattr(packed, "_simplejpeg", lambda: None)
    assert np.array_equal(got, decode_compressed(data, format=format, where="camera 'front'"))
    assert np.array_equal(cached, got)
    again = np.empty_like(got)
    assert unpack_rgb_into(again, np.frombuffer(data, np.uint8))
    assert np.array_equal(again, cached)


def test_colours_that_were_compressed_in_the_other_order_come_back():
    pixels = picture()
    data = jpeg(pixels, cv2.IMWRITE_JPEG_QUALITY, 100)
    got = decode_compressed(data, format="rgb8; jpeg compressed rgb8", where="camera 'front'")
    plain = decode_compressed(data, format="rgb8; jpeg compressed bgr8", where="camera 'front'")
    assert np.array_equal(got, plain[..., ::-1])
    assert np.abs(got.astype(int) - pixels).mean() < 5


def test_what_does_not_fit_is_not_unpacked():
    data = np.frombuffer(jpeg(picture()), np.uint8)
    assert not unpack_rgb_into(np.empty((41, 58, 3), np.uint8), data)
    assert not unpack_rgb_into(np.empty((41, 57, 3), np.uint8), data[:40])
    assert not unpack_rgb_into(np.empty((41, 57, 3), np.uint8), data[:0])


def test_a_jpeg_of_an_absurd_size_takes_no_memory(monkeypatch: pytest.MonkeyPatch):
    data = bytearray(jpeg(picture()))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = bytes.fromhex("fde8fde8")  # 65,000 x 65,000
    refused = SimpleNamespace(decode_jpeg_header=packed._simplejpeg().decode_jpeg_header)
    monkeypatch.setattr(packed, "_simplejpeg", lambda: refused)
    with pytest.raises(MessageError, match="neither JPEG nor PNG"):
        decode_compressed(bytes(data), format="jpeg", where="camera 'front'")
