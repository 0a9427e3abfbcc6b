"""The ROS messages of an episode, to and from CDR bytes."""

from __future__ import annotations

from collections.abc import Sequence
from struct import error as StructError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from fastvla_core.bags.definitions import typestore
from fastvla_core.errors import MessageError

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
FLOAT64_ARRAY = "std_msgs/msg/Float64MultiArray"
STRING = "std_msgs/msg/String"
TASK_OUTCOME = "fastvla_msgs/msg/TaskOutcome"


def stamp_of(stamp_ns: int) -> Any:
    """A builtin_interfaces/Time."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return typestore().types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)


def _header(stamp_ns: int, frame_id: str) -> Any:
    kind = typestore().types["std_msgs/msg/Header"]
    return kind(stamp=stamp_of(stamp_ns), frame_id=frame_id)


def image_message(image: NDArray[np.uint8], *, stamp_ns: int, frame_id: str) -> Any:
    """A sensor_msgs/Image from uint8 [H, W, 3] RGB."""
    pixels = np.ascontiguousarray(image)
    height, width, channels = pixels.shape
    return typestore().types[IMAGE](
        header=_header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * channels,
        data=pixels.reshape(-1),
    )


def joint_state_message(
    names: Sequence[str],
    *,
    stamp_ns: int,
    positions: NDArray[np.floating],
    velocities: NDArray[np.floating] | None = None,
) -> Any:
    """A sensor_msgs/JointState; rad, m, rad/s, m/s."""
    empty = np.zeros(0)
    return typestore().types[JOINT_STATE](
        header=_header(stamp_ns, ""),
        name=list(names),
        position=np.asarray(positions, np.float64),
        velocity=empty if velocities is None else np.asarray(velocities, np.float64),
        effort=empty,
    )


def trajectory_message(
    names: Sequence[str], *, stamp_ns: int, positions: NDArray[np.floating], duration_s: float
) -> Any:
    """A trajectory_msgs/JointTrajectory of one point, reached `duration_s` after the stamp."""
    types = typestore().types
    empty = np.zeros(0)
    sec, nanosec = divmod(round(duration_s * 1e9), 1_000_000_000)
    point = types["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=np.asarray(positions, np.float64),
        velocities=empty,
        accelerations=empty,
        effort=empty,
        time_from_start=types["builtin_interfaces/msg/Duration"](sec=sec, nanosec=nanosec),
    )
    return types[JOINT_TRAJECTORY](
        header=_header(stamp_ns, ""), joint_names=list(names), points=[point]
    )


def to_cdr(message: Any, *, type_name: str) -> bytes:
    """Serialise one message, little endian."""
    return bytes(typestore().serialize_cdr(message, type_name))


def from_cdr(data: bytes | memoryview, *, type_name: str, store: Typestore | None = None) -> Any:
    """Deserialise one message; large fields are read-only views of `data`.

    Args:
        store: Defines the type; by default the standard messages and our own.

    Raises:
        MessageError: the bytes are not a message of that type.
    """
    try:
        return (store or typestore()).deserialize_cdr(data, type_name)
    except (SerdeError, StructError, ValueError, LookupError, AssertionError, TypeError,
            OverflowError, MemoryError, RecursionError) as error:  # fmt: skip
        raise MessageError(
            f"{len(data)} bytes are no {type_name} ({error})",
            mend="check that publisher and recorder use the same message package",
        ) from error
