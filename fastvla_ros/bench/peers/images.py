"""Names, QoS and stamps of the images, alike on both sides.

Stamps are of the monotonic clock: all processes of a machine share it and nobody sets it.
"""

from __future__ import annotations

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

NS = 1_000_000_000


def topic(camera: int) -> str:
    """The topic of one camera."""
    return f"camera_{camera}/image_raw"


def qos(reliability: str, depth: int) -> QoSProfile:
    """A profile by the name of its reliability: `reliable` or `best_effort`."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


def set_stamp(image: Image, now_ns: int) -> None:
    """Put a time into the header."""
    stamp = image.header.stamp
    stamp.sec, stamp.nanosec = divmod(now_ns, NS)


def age_ns(image: Image, now_ns: int) -> int:
    """The time since the image's stamp."""
    stamp = image.header.stamp
    return now_ns - stamp.sec * NS - stamp.nanosec
