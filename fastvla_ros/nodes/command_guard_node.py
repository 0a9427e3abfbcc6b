"""The command guard: the last check before the robot, in a process of its own."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from fastvla_core.errors import CommandError, MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.velocity import VelocityFollower, load_twist_converter
from fastvla_core.types import GripperCommand, JointTrajectoryCommand
from fastvla_msgs.msg import GuardStatus
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.bridge.joints import joint_state_to_state, stamp_ns
from fastvla_ros.commands import arm, joint_trajectory
from fastvla_ros.diagnostics.status import DiagnosticsPublisher
from fastvla_ros.nodes.command_guard_diagnostics import GuardDiagnostics
from fastvla_ros.nodes.command_guard_gripper import GripperSender
from fastvla_ros.nodes.command_guard_output import GuardOutput
from fastvla_ros.nodes.command_guard_rules import (
    CLOCK_JUMP,
    CommandGuard,
    GuardedCommand,
    GuardReport,
)

STATUS_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_COMMAND_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_JOINTS_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
_WATCH_PERIOD_S = 0.02
_STATUS_PERIOD_NS = 1_000_000_000
_CHANGED_STATUS_PERIOD_NS = 100_000_000
_COMPLAIN_PERIOD_S = 2.0
_OLDEST_COMMAND_NS = 1_000_000_000


class CommandGuardNode(Node):
    """Passes the policy's commands on within the contract's limits, and holds when they stop.

    Parameters:
        contract: Robot contract, a name or a file.

    Raises:
        ContractError: the contract, or the URDF that it names, cannot be read.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("command_guard", **options)
        source = self.declare_parameter("contract", "tabletop").value
        contract = load_contract(source)
        self._contract = contract
        twist = load_twist_converter(contract, source=source)
        velocities = contract.outputs.sends_velocities
        follower = VelocityFollower(contract, twist=twist) if velocities else None
        self._guard = CommandGuard(contract, follower=follower)
        self._commands = GuardOutput(contract, twist=twist)
        self._lock = threading.Lock()
        self._closed = False
        self._told: GuardReport | None = None
        self._told_ns = 0
        self._output = self.create_publisher(
            message_class(contract.outputs.message_type), contract.outputs.topic, _COMMAND_QOS
        )
        self._status = self.create_publisher(GuardStatus, "~/status", STATUS_QOS)
        self._gripper = GripperSender(self, contract.gripper) if contract.gripper else None
        self.create_subscription(
            JointState, contract.joint_states.topic, self._on_joint_state, _JOINTS_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        self.create_subscription(
            JointTrajectory, contract.outputs.command, self._on_command, _COMMAND_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        services = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/stop", self._on_stop, callback_group=services)
        self.create_service(Trigger, "~/reset_stop", self._on_reset_stop, callback_group=services)
        # The watchdog measures real time: it must see a sender die whatever /clock says.
        self.create_timer(
            _WATCH_PERIOD_S, self._watch, callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )  # fmt: skip
        judge = GuardDiagnostics()
        DiagnosticsPublisher(
            self,
            hardware_id=contract.name,
            collect=lambda: judge.statuses(self._guard.report()),
        )
        self.get_logger().info(
            f"guarding '{contract.name}': '{contract.outputs.command}' to "
            f"'{contract.outputs.topic}', hold after {contract.watchdog.timeout_s} s of silence"
        )

    def prepare_shutdown(self) -> None:
        """Hold at the measured position and pass nothing on any more."""
        with self._lock:
            if not self._closed:
                self._send(self._guard.stop("the guard shuts down", now_ns=time.monotonic_ns()))
                self._tell()
            self._closed = True

    def destroy_node(self) -> None:
        """Hold, then leave the graph."""
        self.prepare_shutdown()
        if self._gripper is not None:
            self._gripper.destroy()
        super().destroy_node()

    def _on_joint_state(self, message: Any) -> None:
        try:
            state = joint_state_to_state(message, contract=self._contract)
        except MessageError as error:
            self._complain(f"a joint state was dropped: {error}")
            return
        measured_ns = stamp_ns(message.header.stamp)
        with self._lock:
            hold = self._guard.on_state(state, now_ns=time.monotonic_ns(), stamp_ns=measured_ns)
            if not self._closed:
                self._send(hold)
        if hold is not None:
            self._warn_of_hold(CLOCK_JUMP)

    def _on_command(self, message: Any) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._closed:
                return
            try:
                command = self._read(message)
                passed = self._guard.on_command(
                    command.names,
                    command.positions,
                    now_ns=now_ns,
                    velocities=command.velocities,
                )
            except CommandError as error:
                self._complain(f"a command was dropped: {error}")
                return
            self._send(passed)

    def _read(self, message: Any) -> JointTrajectoryCommand:
        try:
            command = joint_trajectory.from_message(message)
            age_ns = self.get_clock().now().nanoseconds - command.stamp_ns
            if command.stamp_ns and age_ns > _OLDEST_COMMAND_NS:
                raise CommandError(
                    f"command is {age_ns * 1e-9:.1f} s old",
                    mend="synchronise the clocks of sender and guard, or look for what delays it",
                )
        except CommandError:
            self._guard.drop()
            raise
        return command

    def _watch(self) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._closed:
                return
            hold = self._guard.watchdog(now_ns=now_ns)
            self._send(hold)
            report = self._guard.report()
            changed = report != self._told
            due_ns = _CHANGED_STATUS_PERIOD_NS if changed else _STATUS_PERIOD_NS
            if hold is not None or now_ns - self._told_ns >= due_ns:
                self._tell()
        if hold is not None and not self._guard.ended_at_rest:
            self._warn_of_hold(report.reason)
        if self._gripper is not None:
            self._gripper.flush()

    def _on_stop(self, _request: Any, response: Any) -> Any:
        with self._lock:
            hold = self._guard.stop("~/stop was called", now_ns=time.monotonic_ns())
            self._send(hold)
            self._tell()
        response.success = True
        response.message = "stopped; call ~/reset_stop to go on"
        return response

    def _on_reset_stop(self, _request: Any, response: Any) -> Any:
        with self._lock:
            try:
                self._guard.reset_stop(now_ns=time.monotonic_ns())
                response.success, response.message = True, "the stop is released"
            except CommandError as error:
                response.success, response.message = False, str(error)
            self._tell()
        return response

    def _send(self, passed: GuardedCommand | None) -> None:
        if passed is None:
            return
        command = self._commands.command(passed, now_ns=self.get_clock().now().nanoseconds)
        self._output.publish(arm.to_message(command))
        if passed.gripper is not None and self._gripper is not None:
            spec = self._contract.gripper
            assert spec is not None
            self._gripper.send(
                GripperCommand(
                    stamp_ns=0,
                    name=self._contract.driver_names[spec.name],
                    position=passed.gripper,
                    max_effort=spec.max_effort,
                )
            )

    def _tell(self) -> None:
        report = self._guard.report()
        self._told, self._told_ns = report, time.monotonic_ns()
        message = GuardStatus(
            latched=report.latched,
            reason=report.reason,
            limited_joints=list(report.limited_joints),
            commands_received=report.received,
            commands_limited=report.limited,
            commands_dropped=report.dropped,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    def _warn_of_hold(self, reason: str) -> None:
        self.get_logger().warning(f"holding at the measured position: {reason}")

    def _complain(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_COMPLAIN_PERIOD_S)
