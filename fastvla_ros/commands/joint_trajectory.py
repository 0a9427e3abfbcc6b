"""`JointTrajectoryCommand` and `trajectory_msgs/JointTrajectory` with one point."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from fastvla_core.errors import CommandError
from fastvla_core.types import JointTrajectoryCommand
from fastvla_ros.bridge.joints import stamp_ns, to_time


def to_message(command: JointTrajectoryCommand, *, frame_id: str = "") -> JointTrajectory:
    """One point that is reached `duration_s` after the stamp; a stamp of 0 means on arrival.

    A joint_trajectory_controller wants stamp 0: it refuses a point whose time is over when it
    comes in.
    """
    message = JointTrajectory()
    message.header.stamp = to_time(command.stamp_ns)
    message.header.frame_id = frame_id
    message.joint_names = list(command.names)
    velocities = command.velocities
    duration_ns = round(command.duration_s * 1e9)
    message.points = [
        JointTrajectoryPoint(
            positions=array.array("d", command.positions.tolist()),
            velocities=array.array("d", [] if velocities is None else velocities.tolist()),
            time_from_start=Duration(
                sec=duration_ns // 1_000_000_000, nanosec=duration_ns % 1_000_000_000
            ),
        )
    ]
    return message


def from_message(message: Any) -> JointTrajectoryCommand:
    """Read a message with one point; its velocities are None where it gives none.

    Raises:
        CommandError: not exactly one point, or the counts of names and values differ.
    """
    names = tuple(message.joint_names)
    if len(message.points) != 1:
        raise CommandError(
            f"command has {len(message.points)} points, expected 1",
            mend="a whole trajectory goes to the controller's action, not to this topic",
        )
    point = message.points[0]
    positions = np.asarray(point.positions, np.float64)
    velocities = np.asarray(point.velocities, np.float64)
    if positions.shape != (len(names),) or velocities.shape not in ((len(names),), (0,)):
        raise CommandError(
            f"command names {len(names)} joints, but has {positions.size} positions and "
            f"{velocities.size} velocities"
        )
    return JointTrajectoryCommand(
        stamp_ns=stamp_ns(message.header.stamp),
        names=names,
        positions=positions,
        velocities=velocities if velocities.size else None,
        duration_s=stamp_ns(point.time_from_start) * 1e-9,
    )
