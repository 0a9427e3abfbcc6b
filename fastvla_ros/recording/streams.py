"""The topics that a robot contract implies, and subscriptions that take them as bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvla_core.bags.definitions import FEEDBACK
from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_core.robot.contract import RobotContract
from fastvla_ros.bridge.classes import message_class

if TYPE_CHECKING:
    from rclpy.node import Node

ACTION = "policy_server/execute_task"

# The encapsulation header, seconds, nanoseconds.
_STAMP_END = 4 + 4 + 4
# A hiccup of the recorder must not cost a sample.
_DEPTH = 100
_JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One topic to listen to.

    Attributes:
        name: What people call it: a camera's name, `joint_states`, ...
        topic: Relative to the robot's namespace, or absolute.
        type_name: For example `sensor_msgs/msg/Image`.
        is_camera: Its messages are large, and each is worth less than a command.
        is_sensor: Publishers may offer best effort.
        latched: Late listeners get the last message.
    """

    name: str
    topic: str
    type_name: str
    is_camera: bool = False
    is_sensor: bool = False
    latched: bool = False


def robot_streams(contract: RobotContract) -> tuple[Stream, ...]:
    """What the robot measures: its cameras, also those that the policy does not see, and joints."""
    cameras = [
        Stream(
            name=camera.name,
            topic=camera.topic,
            type_name=camera.message_type,
            is_camera=True,
            is_sensor=True,
        )
        for camera in contract.cameras
    ]
    joints = Stream(
        name=JOINT_STATES,
        topic=contract.joint_states.topic,
        type_name="sensor_msgs/msg/JointState",
        is_sensor=True,
    )
    return (*cameras, joints)


def task_streams() -> tuple[Stream, ...]:
    """What is to be done, and whether it was done."""
    return (
        Stream(
            name="current_task", topic="current_task", type_name="std_msgs/msg/String", latched=True
        ),
        Stream(
            name="task_outcome",
            topic="task_outcome",
            type_name="fastvla_msgs/msg/TaskOutcome",
            latched=True,
        ),
    )


def serving_streams(contract: RobotContract) -> tuple[Stream, ...]:
    """What the policy server and the command guard say, to the robot and about themselves."""
    return (
        Stream(name="command", topic=contract.outputs.command, type_name=command_type()),
        Stream(
            name="output", topic=contract.outputs.topic, type_name=contract.outputs.message_type
        ),
        Stream(
            name="action_chunk",
            topic="policy_server/action_chunk",
            type_name="fastvla_msgs/msg/ActionChunk",
        ),
        Stream(name="feedback", topic=f"{ACTION}/_action/feedback", type_name=FEEDBACK),
        Stream(
            name="guard_status",
            topic="command_guard/status",
            type_name="fastvla_msgs/msg/GuardStatus",
            latched=True,
        ),
        Stream(
            name="diagnostics",
            topic="/diagnostics",
            type_name="diagnostic_msgs/msg/DiagnosticArray",
        ),
        Stream(name="rosout", topic="/rosout", type_name="rcl_interfaces/msg/Log"),
    )


def command_type() -> str:
    """What the policy server sends to the guard, whatever the controller wants."""
    return _JOINT_TRAJECTORY


def listen(
    node: Node, stream: Stream, take: Callable[[bytes], None], *, callback_group: Any = None
) -> Any:
    """Subscribe to a stream; `take` gets each message as it came, serialised.

    Returns:
        The subscription.
    """
    return node.create_subscription(
        message_class(stream.type_name),
        stream.topic,
        take,
        _qos(stream),
        raw=True,
        callback_group=callback_group,
    )


def _qos(stream: Stream) -> Any:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    best_effort, durable = ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.TRANSIENT_LOCAL
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
        reliability=best_effort if stream.is_sensor else ReliabilityPolicy.RELIABLE,
        durability=durable if stream.latched else DurabilityPolicy.VOLATILE,
    )


def read_message(data: bytes, kind: Any) -> Any:
    """A serialised message; None where the bytes are no such message."""
    from rclpy.serialization import deserialize_message

    # Real rclpy makes a message of its defaults out of nothing at all.
    if not data:
        return None
    try:
        return deserialize_message(data, kind)
    # What is raised differs by runtime and middleware; whoever records keeps the bytes as they are.
    except Exception:
        return None


def header_stamp_ns(data: bytes) -> int:
    """The stamp of a serialised message that begins with a header; 0 when none is set or there."""
    if len(data) < _STAMP_END:
        return 0
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", data, 4)
    return sec * 1_000_000_000 + nanosec
