"""What the tree knows about the robot's cell, and how it calls for help."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String

from fastvla_msgs.msg import GuardStatus

# The guard says how it is once a second.
_GUARD_SILENT_S = 2.5
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Cell:
    """Listens to topics, so that a tick only has to look.

    Attributes:
        person_near: The last of `person_in_cell`. It makes the robot hold still politely; it is no
            safety function. What must stop the robot calls `command_guard/stop`, or cuts its power.
        running_task: The instruction that the policy server carries out, for whomever; "" for none.
        calls: What `call_for_help` was told so far.
    """

    def __init__(self, node: Node) -> None:
        self.person_near = False
        self.running_task = ""
        self.calls: list[str] = []
        self._node = node
        self._guard_at_s = float("-inf")
        node.create_subscription(Bool, "person_in_cell", self._on_person, 10)
        node.create_subscription(String, "current_task", self._on_task, _LATCHED)
        node.create_subscription(GuardStatus, "command_guard/status", self._on_guard, _LATCHED)
        self._help = node.create_publisher(String, "help_wanted", _LATCHED)

    @property
    def guard_is_there(self) -> bool:
        """Whether the command guard has told its status lately."""
        return time.monotonic() - self._guard_at_s < _GUARD_SILENT_S

    def call_for_help(self, why: str) -> None:
        """Tell people, on the topic `help_wanted` and in the log."""
        self.calls.append(why)
        self._help.publish(String(data=why))
        self._node.get_logger().error(f"help wanted: {why}")

    def _on_person(self, message: Any) -> None:
        self.person_near = message.data

    def _on_task(self, message: Any) -> None:
        self.running_task = message.data

    def _on_guard(self, _message: Any) -> None:
        self._guard_at_s = time.monotonic()
