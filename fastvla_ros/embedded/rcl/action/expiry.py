"""Forgets goals whose results were kept long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class GoalExpiry:
    """Calls `forget(goal_id)` once a goal has been over for `timeout_s` of the node's time."""

    def __init__(
        self,
        node: Node,
        forget: Callable[[bytes], None],
        *,
        timeout_s: float,
        callback_group: CallbackGroup,
    ) -> None:
        """Watch nothing yet; a negative timeout keeps results for ever."""
        self._node = node
        self._forget = forget
        self._timeout_ns = int(timeout_s * 1e9)
        self._ended_ns: dict[bytes, int] = {}
        self._timer = node.create_timer(
            max(timeout_s, 0.0), self._look, callback_group, autostart=False
        )

    def goal_ended(self, goal_id: bytes) -> None:
        """Start to count for a goal."""
        if self._timeout_ns < 0:
            return
        self._ended_ns[goal_id] = self._node.get_clock().now().nanoseconds
        if self._timer.is_canceled():
            self._wait(self._timeout_ns)

    def destroy(self) -> None:
        """Forget nothing any more."""
        self._node.destroy_timer(self._timer)

    def _look(self) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        for goal_id, ended_ns in list(self._ended_ns.items()):
            if ended_ns + self._timeout_ns <= now_ns:
                del self._ended_ns[goal_id]
                self._forget(goal_id)
        self._timer.cancel()
        if self._ended_ns:
            self._wait(min(self._ended_ns.values()) + self._timeout_ns - now_ns)

    def _wait(self, duration_ns: int) -> None:
        self._timer.timer_period_ns = duration_ns
        self._timer.reset()
