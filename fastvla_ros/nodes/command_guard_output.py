"""What the guard lets through, as a command of the contract's interface."""

from __future__ import annotations

from typing_extensions import assert_never

from fastvla_core.robot.contract import CommandInterface, RobotContract
from fastvla_core.robot.velocity import TwistConverter
from fastvla_core.types import (
    ArmCommand,
    ForwardPositionCommand,
    JointJogCommand,
    JointTrajectoryCommand,
)
from fastvla_ros.nodes.command_guard_rules import GuardedCommand


class GuardOutput:
    """Turns guarded commands into those that the robot's controller takes.

    Args:
        twist: Needed by the interface `twist`.
    """

    def __init__(self, contract: RobotContract, *, twist: TwistConverter | None) -> None:
        self._interface: CommandInterface = contract.outputs.interface
        self._names = tuple(contract.driver_names[joint.name] for joint in contract.joints)
        self._twist = twist

    def command(self, passed: GuardedCommand, *, now_ns: int) -> ArmCommand:
        """The command to publish at `now_ns`.

        A position starts on arrival, which is stamp 0: a joint_trajectory_controller refuses a
        point whose time is already over. A velocity is stamped, so that MoveIt Servo drops it
        when it comes late.
        """
        match self._interface:
            case "joint_trajectory":
                return JointTrajectoryCommand(
                    stamp_ns=0,
                    names=self._names,
                    positions=passed.positions,
                    velocities=passed.velocities,
                    duration_s=passed.duration_s,
                )
            case "forward_position":
                return ForwardPositionCommand(stamp_ns=0, positions=passed.positions)
            case "joint_jog":
                return JointJogCommand(
                    stamp_ns=now_ns,
                    names=self._names,
                    velocities=passed.velocities,
                    duration_s=passed.duration_s,
                )
            case "twist":
                assert self._twist is not None
                return self._twist.command(passed.velocities, at=passed.positions, stamp_ns=now_ns)
            case _:
                assert_never(self._interface)
