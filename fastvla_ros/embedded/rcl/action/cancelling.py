"""Which goals a cancel request means. Source: action_msgs/srv/CancelGoal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.action.server_goal import ServerGoalHandle

NO_ID = bytes(16)
CANCELABLE = (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING)


def stamp_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def goals_to_cancel(
    wanted: Any, goals: dict[bytes, ServerGoalHandle]
) -> tuple[Any, list[ServerGoalHandle]]:
    """The response with its return code, and the goals that are meant and can be cancelled.

    No id and no stamp mean all goals; a stamp means all that were accepted until then; an id
    means that goal, besides those of the stamp.
    """
    response = CancelGoal.Response()
    goal_id, until_ns = bytes(wanted.goal_id.uuid), stamp_ns(wanted.stamp)
    if goal_id == NO_ID and until_ns == 0:
        return response, [handle for handle in goals.values() if handle.status in CANCELABLE]
    meant = [
        handle
        for key, handle in goals.items()
        if key == goal_id or (until_ns and stamp_ns(handle.goal_info.stamp) <= until_ns)
    ]
    cancelable = [handle for handle in meant if handle.status in CANCELABLE]
    if goal_id != NO_ID and until_ns == 0 and not cancelable:
        known = goal_id in goals
        response.return_code = (
            CancelGoal.Response.ERROR_GOAL_TERMINATED
            if known
            else CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID
        )
    return response, cancelable
