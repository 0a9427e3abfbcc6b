"""`JointJogCommand` and `control_msgs/JointJog`, as MoveIt Servo takes it."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from control_msgs.msg import JointJog

from fastvla_core.errors import CommandError
from fastvla_core.types import JointJogCommand
from fastvla_ros.bridge.joints import stamp_ns, to_time


def to_message(command: JointJogCommand) -> JointJog:
    """Velocities by name; Servo drops a message whose stamp is older than its timeout."""
    message = JointJog()
    message.header.stamp = to_time(command.stamp_ns)
    message.joint_names = list(command.names)
    message.velocities = array.array("d", command.velocities.tolist())
    message.duration = command.duration_s
    return message


def from_message(message: Any) -> JointJogCommand:
    """Read a message of velocities; without a duration it is good for no time.

    Raises:
        CommandError: the counts differ, or a value is not finite.
    """
    velocities = np.asarray(message.velocities, np.float64)
    if velocities.shape != (len(message.joint_names),) or not np.isfinite(velocities).all():
        raise CommandError(
            f"jog of {len(message.joint_names)} joints has velocities {velocities.tolist()}"
        )
    return JointJogCommand(
        stamp_ns=stamp_ns(message.header.stamp),
        names=tuple(message.joint_names),
        velocities=velocities,
        duration_s=float(message.duration),
    )
