"""`GripperCommand` as a goal of the gripper's action, new (Jazzy on) or old (Humble)."""

from __future__ import annotations

from typing import Any

from fastvla_core.robot.contract import GripperInterface
from fastvla_core.types import GripperCommand


def action_type(interface: GripperInterface) -> Any:
    """The action class of a gripper interface, from `control_msgs`."""
    from control_msgs import action

    if interface == "gripper_command":
        return action.GripperCommand
    return action.ParallelGripperCommand


def to_goal(command: GripperCommand, *, interface: GripperInterface) -> Any:
    """The goal that moves one finger to `command.position` [m] with at most `max_effort` [N]."""
    goal = action_type(interface).Goal()
    if interface == "gripper_command":
        goal.command.position = command.position
        goal.command.max_effort = command.max_effort
    else:
        goal.command.name = [command.name]
        goal.command.position = [command.position]
        goal.command.effort = [command.max_effort]
    return goal
