"""Sends gripper goals without ever waiting for them."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from fastvla_core.robot.contract import GripperSpec
from fastvla_core.types import GripperCommand
from fastvla_ros.commands import gripper
from fastvla_ros.nodes.action_requests import action_client

_COMPLAIN_PERIOD_S = 5.0
# A server that dies takes the goal with it and says nothing; one that lives answers sooner.
_ANSWER_S = 2.0


class GripperSender:
    """One goal at a time is on its way to the gripper; of those that wait, only the newest.

    A goal whose server was started anew before it answered is sent again.
    """

    def __init__(self, node: Node, spec: GripperSpec) -> None:
        self._node, self._spec = node, spec
        self._client = action_client(
            node,
            gripper.action_type(spec.interface),
            spec.action,
            callback_group=ReentrantCallbackGroup(),
        )
        self._lock = threading.Lock()
        self._waiting: GripperCommand | None = None
        self._on_its_way: GripperCommand | None = None
        self._sent_s = 0.0

    def send(self, command: GripperCommand) -> None:
        """Have the gripper move; returns at once."""
        with self._lock:
            self._waiting = command
        self.flush()

    def flush(self) -> None:
        """Send what waits, if the gripper's server is there and has answered the last goal."""
        with self._lock:
            self._give_up_what_is_lost()
            if self._waiting is None or self._on_its_way is not None:
                return
            if not self._client.server_is_ready():
                self._node.get_logger().warning(
                    f"nobody serves the gripper action '{self._spec.action}'; "
                    "the last gripper command waits",
                    throttle_duration_sec=_COMPLAIN_PERIOD_S,
                )
                return
            command, self._waiting = self._waiting, None
            self._on_its_way, self._sent_s = command, time.monotonic()
        goal = gripper.to_goal(command, interface=self._spec.interface)
        self._client.send_goal_async(goal).add_done_callback(
            functools.partial(self._answered, command)
        )

    def destroy(self) -> None:
        """Take the client off the graph."""
        self._client.destroy()

    def _give_up_what_is_lost(self) -> None:
        if self._on_its_way is not None and time.monotonic() - self._sent_s > _ANSWER_S:
            self._waiting = self._waiting or self._on_its_way
            self._on_its_way = None

    def _answered(self, command: GripperCommand, future: Any) -> None:
        with self._lock:
            if self._on_its_way is command:
                self._on_its_way = None
        answer = future.result()
        if answer is not None and not answer.accepted:
            self._node.get_logger().warning(
                f"the gripper refused a command (action '{self._spec.action}')",
                throttle_duration_sec=_COMPLAIN_PERIOD_S,
            )
        self.flush()
