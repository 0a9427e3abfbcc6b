"""Which message carries which command of the arm."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_never

from fastvla_core.types import (
    ArmCommand,
    ForwardPositionCommand,
    JointJogCommand,
    JointTrajectoryCommand,
    TwistCommand,
)
from fastvla_ros.commands import forward_position, joint_jog, joint_trajectory, twist


def to_message(command: ArmCommand) -> Any:
    """The message of its interface."""
    match command:
        case JointTrajectoryCommand():
            return joint_trajectory.to_message(command)
        case ForwardPositionCommand():
            return forward_position.to_message(command)
        case JointJogCommand():
            return joint_jog.to_message(command)
        case TwistCommand():
            return twist.to_message(command)
        case _:
            assert_never(command)
