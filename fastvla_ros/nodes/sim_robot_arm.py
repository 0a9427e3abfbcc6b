"""The simulated arm's controller: takes the commands of the contract's interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.kinematics import ToolChain
from fastvla_core.robot.velocity import load_tool_chain
from fastvla_core.types import TwistCommand
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.commands import joint_jog, twist
from fastvla_ros.nodes.sim_robot_drive import SimDrive

# A velocity that is not renewed ends then, as with MoveIt Servo's `incoming_command_timeout`.
_VELOCITY_TIMEOUT_S = 0.1
# Bounds the joints' velocities where the arm is stretched or folded.
_DAMPING = 0.02


class ArmInput:
    """Subscribes to the contract's output topic and drives the arm.

    Args:
        source: The contract's file or name; a URDF lies beside it.
        drive: Follows the targets.
        now_ns: The latest simulated instant.

    Raises:
        ContractError: the URDF of a twist is missing, or does not fit the joints.
    """

    def __init__(
        self,
        node: Node,
        contract: RobotContract,
        *,
        source: str,
        drive: SimDrive,
        now_ns: Callable[[], int],
        group: CallbackGroup,
    ) -> None:
        self._node, self._drive, self._now_ns = node, drive, now_ns
        self._arm = [joint.name for joint in contract.joints]
        self._ours = {theirs: ours for ours, theirs in contract.driver_names.items()}
        self._spec = contract.outputs.twist
        self._chain = load_tool_chain(contract, source=source)
        takes = {
            "joint_trajectory": self._on_trajectory,
            "forward_position": self._on_positions,
            "joint_jog": self._on_jog,
            "twist": self._on_twist,
        }
        self._take = takes[contract.outputs.interface]
        node.create_subscription(
            message_class(contract.outputs.message_type),
            contract.outputs.topic,
            self._on_command,
            10,
            callback_group=group,
        )

    def _on_command(self, message: Any) -> None:
        try:
            self._take(message)
        except CommandError as error:
            self._node.get_logger().error(f"a command was dropped: {error}")

    def _on_trajectory(self, message: Any) -> None:
        if not message.points:
            return
        point = message.points[-1]
        self._drive.move(
            self._renamed(message.joint_names),
            list(point.positions),
            now_ns=self._now_ns(),
            duration_s=point.time_from_start.sec + point.time_from_start.nanosec / 1e9,
        )

    def _on_positions(self, message: Any) -> None:
        # As a forward_command_controller does: at once, as fast as the motors go.
        self._drive.move(self._arm, list(message.data), now_ns=self._now_ns(), duration_s=0.0)

    def _on_jog(self, message: Any) -> None:
        command = joint_jog.from_message(message)
        self._jog(self._renamed(command.names), command.velocities)

    def _on_twist(self, message: Any) -> None:
        assert self._chain is not None
        at = self._drive.target(self._now_ns())[: len(self._arm)]
        self._jog(self._arm, self._joint_velocities(twist.from_message(message), self._chain, at))

    def _joint_velocities(
        self, command: TwistCommand, chain: ToolChain, at: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Those that give the tool its twist, by damped least squares; float64 [J]."""
        assert self._spec is not None
        linear, angular = command.linear, command.angular
        if command.frame == self._spec.tool:
            rotation = chain.pose(at).rotation
            linear, angular = rotation @ linear, rotation @ angular
        elif command.frame != self._spec.base:
            raise CommandError(
                f"twist in frame '{command.frame}'",
                mend=f"give it in '{self._spec.base}' or '{self._spec.tool}'",
            )
        jacobian = chain.jacobian(at)
        damped = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        return jacobian.T @ np.linalg.solve(damped, np.concatenate([linear, angular]))

    def _jog(self, names: list[str], velocities: NDArray[np.float64]) -> None:
        self._drive.jog(
            names, velocities.tolist(), now_ns=self._now_ns(), duration_s=_VELOCITY_TIMEOUT_S
        )

    def _renamed(self, names: Any) -> list[str]:
        return [str(self._ours.get(name, name)) for name in names]
