"""Image messages with and without cv_bridge: the same pixels, or a clear error."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_ros.bridge import images
from fastvla_ros.bridge.images import camera_message, image_to_rgb, read_camera
from fastvla_ros.runtime import ensure_ros
from tests.ros.bridge.messages import CONTRACT, image, picture

RGB = picture(3)
ENCODED = {
    "rgb8": RGB,
    "bgr8": np.ascontiguousarray(RGB[..., ::-1]),
    "mono8": RGB[..., 0].copy(),
    "rgba8": np.dstack([RGB, RGB[..., :1]]),
}

# Stands in for the real one: the same call, and conversions of its own for two encodings.
_WORKING = """
import numpy as np
CALLS = []
class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding="passthrough"):
        CALLS.append(msg.encoding)
        if msg.encoding not in ("bgr8", "mono8", "rgba8"):
            raise TypeError("not a colour format")
        channels = {"bgr8": 3, "mono8": 1, "rgba8": 4}[msg.encoding]
        flat = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)
        pixels = flat[:, : msg.width * channels].reshape(msg.height, msg.width, channels)
        if msg.encoding == "bgr8":
            return pixels[..., ::-1].copy()
        if msg.encoding == "rgba8":
            return pixels[..., :3] + np.uint8(1)  # a rounding of its own
        return np.repeat(pixels, 3, axis=2)
"""
_CRASHING = "import os\nos.abort()\n"
_BROKEN = "raise ImportError('built for another NumPy')\n"


@pytest.fixture
def install_cv_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(source: str) -> None:
        (tmp_path / "cv_bridge.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(tmp_path))
        images.cv_bridge_encodings.cache_clear()
        images._cv_bridge.cache_clear()

    yield install
    sys.modules.pop("cv_bridge", None)
    images.cv_bridge_encodings.cache_clear()
    images._cv_bridge.cache_clear()


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_message_becomes_rgb(encoding: str):
    pixels = ENCODED[encoding]
    expected = np.repeat(pixels[..., None], 3, axis=2) if encoding == "mono8" else RGB
    message = image(pixels, stamp_ns=1, encoding=encoding)
    np.testing.assert_array_equal(image_to_rgb(message), expected)


def test_cv_bridge_is_used_only_where_it_gives_the_same_pixels(install_cv_bridge):
    install_cv_bridge(_WORKING)
    assert images.cv_bridge_encodings() == {"bgr8", "mono8"}
    without = {
        e: images.message_to_rgb(image(p, stamp_ns=1, encoding=e), "t") for e, p in ENCODED.items()
    }
    for encoding, pixels in ENCODED.items():
        message = image(pixels, stamp_ns=1, encoding=encoding)
        np.testing.assert_array_equal(image_to_rgb(message), without[encoding])
    import cv_bridge

    assert cv_bridge.CALLS == ["bgr8", "mono8"]


def test_with_cv_bridge_broken_messages_are_named_too(install_cv_bridge):
    install_cv_bridge(_WORKING)
    message = image(ENCODED["bgr8"], stamp_ns=1, encoding="bgr8")
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match="step \\* height"):
        image_to_rgb(message)


@pytest.mark.parametrize("source", [_CRASHING, _BROKEN])
def test_a_cv_bridge_that_fails_is_left_alone(install_cv_bridge, source: str):
    install_cv_bridge(source)
    assert images.cv_bridge_encodings() == frozenset()
    message = image(ENCODED["bgr8"], stamp_ns=1, encoding="bgr8")
    np.testing.assert_array_equal(image_to_rgb(message), RGB)


def test_the_camera_must_send_what_the_contract_says():
    front = CONTRACT.camera("front")
    np.testing.assert_array_equal(read_camera(front, image(RGB, stamp_ns=1)), RGB)
    with pytest.raises(MessageError, match=r"cameras\.front\.encoding"):
        read_camera(front, image(ENCODED["bgr8"], stamp_ns=1, encoding="bgr8"))
    with pytest.raises(MessageError, match="32x32"):
        read_camera(front, image(picture(1, size=32), stamp_ns=1))


def stamp():
    ensure_ros()
    from builtin_interfaces.msg import Time

    return Time(sec=3, nanosec=4)


def published(camera, pixels):
    message = camera_message(camera, pixels, stamp=stamp(), frame_id="optical")
    assert (message.header.stamp.sec, message.header.frame_id) == (3, "optical")
    return message


def test_what_a_camera_publishes_is_read_back():
    front = CONTRACT.camera("front")
    np.testing.assert_array_equal(read_camera(front, published(front, RGB)), RGB)
    smooth = cv2.GaussianBlur(RGB, (0, 0), 6)
    compressed = dataclasses.replace(front, transport="compressed")
    message = published(compressed, smooth)
    assert message.format == "rgb8; jpeg compressed bgr8"
    np.testing.assert_allclose(read_camera(compressed, message), smooth, atol=12)


@pytest.mark.parametrize("transport", ["raw", "compressed", "compressed_depth"])
def test_what_a_depth_camera_publishes_is_read_back(transport: str):
    front = CONTRACT.camera("front")
    depth = dataclasses.replace(front, kind="depth", encoding="16UC1", transport=transport)
    metres = np.linspace(0.3, 70.0, 96 * 96).reshape(96, 96).astype(np.float32)
    metres[0, 0] = 0.0
    got = read_camera(depth, published(depth, metres))
    # 16 bits of millimetres end at 65.535 m.
    np.testing.assert_allclose(got, np.minimum(metres, 65.535), atol=6e-4)


def test_compressed_and_raw_messages_of_a_camera_are_both_read():
    front = CONTRACT.camera("front")
    data = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    message = SimpleNamespace(data=data, format="rgb8; png compressed bgr8")
    np.testing.assert_array_equal(read_camera(front, message), RGB)
    small = cv2.imencode(".png", RGB[:32, :32])[1].tobytes()
    for broken, words in ((data[:200], "cut short"), (small, "32x32")):
        with pytest.raises(MessageError, match=words):
            read_camera(front, SimpleNamespace(data=broken, format="png"))
