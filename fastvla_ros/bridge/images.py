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
    from sensor_msgs.msg import Image

    height, width, _ = rgb.shape
    message = Image()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = height, width
    message.encoding, message.is_bigendian, message.step = "rgb8", 0, 3 * width
    # rclpy takes an array.array as it is; any other sequence it checks byte by byte.
    message.data = array.array("B", rgb.tobytes())
    return message


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
