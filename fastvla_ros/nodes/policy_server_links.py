"""The policy server's topics: sensors in, commands and previews out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import CameraSpec
from fastvla_msgs.msg import ActionChunk, GuardStatus, TaskOutcome
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.bridge.streams import StreamBridge

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# Best effort matches every publisher; of pictures only the newest counts.
CAMERA_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
JOINTS_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
# Volatile matches a judge that latches its verdict and one that does not.
VERDICT_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
COMMAND_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_COMPLAIN_PERIOD_S = 5.0


class ServerLinks:
    """Every topic of the policy server but its diagnostics.

    Args:
        on_data: Called after each good sensor message.
        on_outcome, on_guard: Called with each verdict and each status of the guard.
    """

    def __init__(
        self,
        node: Node,
        bridge: StreamBridge,
        *,
        on_data: Callable[[], None],
        on_outcome: Callable[[Any], None],
        on_guard: Callable[[Any], None],
    ) -> None:
        self._node, self._bridge, self._on_data = node, bridge, on_data
        contract = bridge.contract
        self.command = node.create_publisher(JointTrajectory, contract.outputs.command, COMMAND_QOS)
        self.preview = node.create_publisher(ActionChunk, "~/action_chunk", 10)
        self.current_task = node.create_publisher(String, "current_task", LATCHED)
        self._publishers = [self.command, self.preview, self.current_task]
        self._subscriptions = [self._camera(camera) for camera in contract.observed_cameras]
        for kind, topic, callback, qos in (
            (JointState, contract.joint_states.topic, self._on_joint_state, JOINTS_QOS),
            (TaskOutcome, "task_outcome", on_outcome, VERDICT_QOS),
            (GuardStatus, "command_guard/status", on_guard, LATCHED),
        ):
            group = MutuallyExclusiveCallbackGroup()
            self._subscriptions.append(
                node.create_subscription(kind, topic, callback, qos, callback_group=group)
            )

    def close(self) -> None:
        """Take every topic off the graph."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def _camera(self, camera: CameraSpec) -> Any:
        return self._node.create_subscription(
            message_class(camera.message_type),
            camera.topic,
            lambda message: self._on_image(camera.name, message),
            CAMERA_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def _on_image(self, camera: str, message: Any) -> None:
        try:
            self._bridge.on_image(camera, message, receive_ns=self._now_ns())
        except MessageError as error:
            self._complain(error)
        else:
            self._on_data()

    def _on_joint_state(self, message: Any) -> None:
        try:
            self._bridge.on_joint_state(message, receive_ns=self._now_ns())
        except MessageError as error:
            self._complain(error)
        else:
            self._on_data()

    def _complain(self, error: MessageError) -> None:
        self._node.get_logger().warning(
            f"a message was dropped: {error}", throttle_duration_sec=_COMPLAIN_PERIOD_S
        )

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
