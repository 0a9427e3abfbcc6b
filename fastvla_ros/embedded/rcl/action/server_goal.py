"""A goal as its server sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from action_msgs.msg import GoalInfo, GoalStatus

from fastvla_ros.embedded.rcl.action.goal_states import TERMINAL, GoalEvent, next_status

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.action.server import ActionServer


class ServerGoalHandle:
    """One accepted goal."""

    def __init__(self, server: ActionServer, goal_info: GoalInfo, request: Any) -> None:
        self._server = server
        self._info = goal_info
        self._request = request
        self._lock = threading.RLock()
        self._status: int = GoalStatus.STATUS_ACCEPTED
        self._destroyed = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServerGoalHandle):
            return NotImplemented
        return bool(self.goal_id == other.goal_id)

    def __hash__(self) -> int:
        return hash(bytes(self.goal_id.uuid))

    @property
    def request(self) -> Any:
        """The goal as the client sent it."""
        return self._request

    @property
    def goal_id(self) -> Any:
        """The UUID message of the goal."""
        return self._info.goal_id

    @property
    def goal_info(self) -> GoalInfo:
        """The goal's id and when it was accepted."""
        return self._info

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return not self._destroyed and self._status not in TERMINAL

    @property
    def is_cancel_requested(self) -> bool:
        """Whether a cancel request was accepted."""
        return self.status == GoalStatus.STATUS_CANCELING

    @property
    def status(self) -> int:
        """A GoalStatus constant."""
        return GoalStatus.STATUS_UNKNOWN if self._destroyed else self._status

    def execute(self, execute_callback: Callable[..., Any] | None = None) -> None:
        """Have the execute callback run; call it from a handle_accepted callback."""
        # A goal that is cancelled before it runs stays CANCELING, and its callback finds that.
        if not self.is_cancel_requested:
            self._update(GoalEvent.EXECUTE)
        self._server.notify_execute(self, execute_callback)

    def publish_feedback(self, feedback: Any) -> None:
        """Send feedback to the clients.

        Raises:
            TypeError: not the action's Feedback.
        """
        if not isinstance(feedback, self._server.action_type.Feedback):
            raise TypeError(f"Expected {self._server.action_type.Feedback}, got {type(feedback)}")
        if not self._destroyed:
            self._server._publish_feedback(self.goal_id, feedback)

    def succeed(self) -> None:
        """End as done; RCLError unless executing or canceling."""
        self._update(GoalEvent.SUCCEED)

    def abort(self) -> None:
        """End as failed; RCLError unless executing or canceling."""
        self._update(GoalEvent.ABORT)

    def canceled(self) -> None:
        """End as cancelled; RCLError unless canceling."""
        self._update(GoalEvent.CANCELED)

    def destroy(self) -> None:
        """Ignore what happens to the goal from now on."""
        self._destroyed = True

    def _update(self, event: GoalEvent) -> None:
        with self._lock:
            if self._destroyed:
                return
            self._status = next_status(self._status, event)
        self._server._goal_changed(self)
