"""The one module for image messages: `sensor_msgs/Image` and `CompressedImage` to arrays and back.

Messages are duck-typed, so that those of rclpy, of the embedded runtime and of a bag reader all
pass. cv_bridge converts where it is installed, works, and gives the very same pixels; our own
buffer view does everything else.
"""

from __future__ import annotations

import array
import functools
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.contract import CameraSpec
from fastvla_core.robot.decode import decode_camera, message_to_rgb, view_message


def image_to_rgb(message: Any, where: str = "image") -> NDArray[np.uint8]:
    """An Image message as uint8 [H, W, 3] RGB; rgb8 is a view of the message's own buffer.

    Raises:
        MessageError: unknown encoding, wrong `step`, or data of another size.
    """
    if message.encoding in cv_bridge_encodings():
        view_message(message, where)  # the checks that cv_bridge does not make
        return np.asarray(_cv_bridge().imgmsg_to_cv2(message, "rgb8"), np.uint8)
    return message_to_rgb(message, where)


def read_camera(camera: CameraSpec, message: Any) -> NDArray[Any]:
    """A message of one of the contract's cameras as an array; see `decode_camera`.

    Raises:
        MessageError: the message breaks its own rules or is not what the contract says.
    """
    return decode_camera(camera, message, to_rgb=image_to_rgb)


def rgb_to_image(rgb: NDArray[np.uint8], *, stamp: Any, frame_id: str) -> Any:
    """A `sensor_msgs/Image` (rgb8) from uint8 [H, W, 3].

    Args:
        stamp: A `builtin_interfaces/Time`.
    """
    return _image(rgb, encoding="rgb8", stamp=stamp, frame_id=frame_id)


def camera_message(camera: CameraSpec, pixels: NDArray[Any], *, stamp: Any, frame_id: str) -> Any:
    """The message that a camera of the contract publishes, by its transport.

    Colours are published as rgb8 or JPEG, distances as 16UC1 or PNG.

    Args:
        pixels: What `read_camera` gives back: uint8 [H, W, 3] RGB, or float32 [H, W] in metres.
        stamp: A `builtin_interfaces/Time`.
    """
    from sensor_msgs.msg import CompressedImage

    if camera.kind == "depth":
        counts = np.round(pixels / camera.depth_unit_m).clip(0, 65535).astype("<u2")
        if camera.transport == "raw":
            return _image(counts, encoding="16UC1", stamp=stamp, frame_id=frame_id)
        # image_transport's header of 16-bit depth says nothing.
        header = bytes(12) if camera.transport == "compressed_depth" else b""
        what = "compressedDepth png" if header else "png compressed "
        message = CompressedImage(format=f"16UC1; {what}", data=_packed(".png", counts, header))
    elif camera.transport == "raw":
        return rgb_to_image(pixels, stamp=stamp, frame_id=frame_id)
    else:
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=_packed(".jpg", bgr))
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def _image(pixels: NDArray[Any], *, encoding: str, stamp: Any, frame_id: str) -> Any:
    from sensor_msgs.msg import Image

    message = Image()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian = encoding, 0
    message.step = pixels.nbytes // message.height
    # rclpy takes an array.array as it is; any other sequence it checks byte by byte.
    message.data = array.array("B", pixels.tobytes())
    return message


def _packed(suffix: str, pixels: NDArray[Any], header: bytes = b"") -> array.array[int]:
    return array.array("B", header + cv2.imencode(suffix, pixels)[1].tobytes())


@functools.cache
def cv_bridge_encodings() -> frozenset[str]:
    """The encodings that cv_bridge converts to the same pixels as we do; tested once, aside.

    The test runs in a process of its own, because a cv_bridge that was built for another NumPy
    can take the whole process down.
    """
    if importlib.util.find_spec("cv_bridge") is None:
        return frozenset()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        check = subprocess.run(
            [sys.executable, "-m", "fastvla_ros.bridge.cv_bridge_check"],
            env=environment, capture_output=True, timeout=30, check=True, text=True,
        )  # fmt: skip
        return frozenset(json.loads(check.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, ValueError, IndexError):
        return frozenset()


@functools.cache
def _cv_bridge() -> Any:
    from cv_bridge import CvBridge

    return CvBridge()
