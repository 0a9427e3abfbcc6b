"""Sends gripper goals without ever waiting for them."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from fastvla_core.robot.contract import GripperSpec
from fastvla_core.types import GripperCommand
from fastvla_ros.commands import gripper

_COMPLAIN_PERIOD_S = 5.0


class GripperSender:
    """One goal at a time is on its way to the gripper; of those that wait, only the newest."""

    def __init__(self, node: Node, spec: GripperSpec) -> None:
        self._node, self._spec = node, spec
        self._client = ActionClient(
            node,
            gripper.action_type(spec.interface),
            spec.action,
            callback_group=ReentrantCallbackGroup(),
        )
        self._lock = threading.Lock()
        self._waiting: GripperCommand | None = None
        self._on_its_way = False

    def send(self, command: GripperCommand) -> None:
        """Have the gripper move; returns at once."""
        with self._lock:
            self._waiting = command
        self.flush()

    def flush(self) -> None:
        """Send what waits, if the gripper's server is there and has answered the last goal."""
        with self._lock:
            if self._waiting is None or self._on_its_way:
                return
            if not self._client.server_is_ready():
                self._node.get_logger().warning(
                    f"nobody serves the gripper action '{self._spec.action}'; "
                    "the last gripper command waits",
                    throttle_duration_sec=_COMPLAIN_PERIOD_S,
                )
                return
            command, self._waiting = self._waiting, None
            self._on_its_way = True
        goal = gripper.to_goal(command, interface=self._spec.interface)
        self._client.send_goal_async(goal).add_done_callback(self._answered)

    def destroy(self) -> None:
        """Take the client off the graph."""
        self._client.destroy()

    def _answered(self, future: Any) -> None:
        with self._lock:
            self._on_its_way = False
        answer = future.result()
        if answer is not None and not answer.accepted:
            self._node.get_logger().warning(
                f"the gripper refused a command (action '{self._spec.action}')",
                throttle_duration_sec=_COMPLAIN_PERIOD_S,
            )
        self.flush()
