"""The states of a goal and what moves it. Source: ROS 2 design, "Actions"."""

from __future__ import annotations

from enum import Enum, auto

from action_msgs.msg import GoalStatus

from fastvla_ros.embedded.rcl._rclpy_pybind11 import RCLError

TERMINAL = frozenset(
    {GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED}
)


class GoalEvent(Enum):
    """What can happen to a goal."""

    EXECUTE = auto()
    CANCEL_GOAL = auto()
    SUCCEED = auto()
    ABORT = auto()
    CANCELED = auto()


TRANSITIONS = {
    (GoalStatus.STATUS_ACCEPTED, GoalEvent.EXECUTE): GoalStatus.STATUS_EXECUTING,
    (GoalStatus.STATUS_ACCEPTED, GoalEvent.CANCEL_GOAL): GoalStatus.STATUS_CANCELING,
    (GoalStatus.STATUS_EXECUTING, GoalEvent.CANCEL_GOAL): GoalStatus.STATUS_CANCELING,
    (GoalStatus.STATUS_EXECUTING, GoalEvent.SUCCEED): GoalStatus.STATUS_SUCCEEDED,
    (GoalStatus.STATUS_EXECUTING, GoalEvent.ABORT): GoalStatus.STATUS_ABORTED,
    (GoalStatus.STATUS_CANCELING, GoalEvent.SUCCEED): GoalStatus.STATUS_SUCCEEDED,
    (GoalStatus.STATUS_CANCELING, GoalEvent.ABORT): GoalStatus.STATUS_ABORTED,
    (GoalStatus.STATUS_CANCELING, GoalEvent.CANCELED): GoalStatus.STATUS_CANCELED,
}


def next_status(status: int, event: GoalEvent) -> int:
    """The state after the event.

    Raises:
        RCLError: the event is impossible in this state.
    """
    try:
        return TRANSITIONS[(status, event)]
    except KeyError:
        raise RCLError(
            f"Failed to update goal state: goal_handle attempted invalid transition from "
            f"state {status} with event {event.name}"
        ) from None
