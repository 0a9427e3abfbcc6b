"""The state machine. Source: ROS 2 design, "Managed nodes"; numbers from lifecycle_msgs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from lifecycle_msgs.msg import State, Transition


class TransitionCallbackReturn(Enum):
    """How a transition callback ended; the values are rcl's labels."""

    SUCCESS = "transition_success"
    FAILURE = "transition_failure"
    ERROR = "transition_error"


class LifecycleState(NamedTuple):
    """A state as callbacks see it."""

    label: str
    state_id: int


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """One arrow of the state machine, by state ids."""

    id: int
    label: str
    start: int
    goal: int


STATES = {
    State.PRIMARY_STATE_UNKNOWN: "unknown",
    State.PRIMARY_STATE_UNCONFIGURED: "unconfigured",
    State.PRIMARY_STATE_INACTIVE: "inactive",
    State.PRIMARY_STATE_ACTIVE: "active",
    State.PRIMARY_STATE_FINALIZED: "finalized",
    State.TRANSITION_STATE_CONFIGURING: "configuring",
    State.TRANSITION_STATE_CLEANINGUP: "cleaningup",
    State.TRANSITION_STATE_SHUTTINGDOWN: "shuttingdown",
    State.TRANSITION_STATE_ACTIVATING: "activating",
    State.TRANSITION_STATE_DEACTIVATING: "deactivating",
    State.TRANSITION_STATE_ERRORPROCESSING: "errorprocessing",
}

# Where each transition state leads to: first number, success, failure, error.
OUTCOMES = {
    State.TRANSITION_STATE_CONFIGURING: (
        Transition.TRANSITION_ON_CONFIGURE_SUCCESS,
        State.PRIMARY_STATE_INACTIVE,
        State.PRIMARY_STATE_UNCONFIGURED,
        State.TRANSITION_STATE_ERRORPROCESSING,
    ),
    State.TRANSITION_STATE_CLEANINGUP: (
        Transition.TRANSITION_ON_CLEANUP_SUCCESS,
        State.PRIMARY_STATE_UNCONFIGURED,
        State.PRIMARY_STATE_INACTIVE,
        State.TRANSITION_STATE_ERRORPROCESSING,
    ),
    State.TRANSITION_STATE_ACTIVATING: (
        Transition.TRANSITION_ON_ACTIVATE_SUCCESS,
        State.PRIMARY_STATE_ACTIVE,
        State.PRIMARY_STATE_INACTIVE,
        State.TRANSITION_STATE_ERRORPROCESSING,
    ),
    State.TRANSITION_STATE_DEACTIVATING: (
        Transition.TRANSITION_ON_DEACTIVATE_SUCCESS,
        State.PRIMARY_STATE_INACTIVE,
        State.PRIMARY_STATE_ACTIVE,
        State.TRANSITION_STATE_ERRORPROCESSING,
    ),
    State.TRANSITION_STATE_SHUTTINGDOWN: (
        Transition.TRANSITION_ON_SHUTDOWN_SUCCESS,
        State.PRIMARY_STATE_FINALIZED,
        State.PRIMARY_STATE_FINALIZED,
        State.TRANSITION_STATE_ERRORPROCESSING,
    ),
    State.TRANSITION_STATE_ERRORPROCESSING: (
        Transition.TRANSITION_ON_ERROR_SUCCESS,
        State.PRIMARY_STATE_UNCONFIGURED,
        State.PRIMARY_STATE_FINALIZED,
        State.PRIMARY_STATE_FINALIZED,
    ),
}

REQUESTS = (
    TransitionRule(
        Transition.TRANSITION_CONFIGURE,
        "configure",
        State.PRIMARY_STATE_UNCONFIGURED,
        State.TRANSITION_STATE_CONFIGURING,
    ),
    TransitionRule(
        Transition.TRANSITION_CLEANUP,
        "cleanup",
        State.PRIMARY_STATE_INACTIVE,
        State.TRANSITION_STATE_CLEANINGUP,
    ),
    TransitionRule(
        Transition.TRANSITION_ACTIVATE,
        "activate",
        State.PRIMARY_STATE_INACTIVE,
        State.TRANSITION_STATE_ACTIVATING,
    ),
    TransitionRule(
        Transition.TRANSITION_DEACTIVATE,
        "deactivate",
        State.PRIMARY_STATE_ACTIVE,
        State.TRANSITION_STATE_DEACTIVATING,
    ),
    TransitionRule(
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        "shutdown",
        State.PRIMARY_STATE_UNCONFIGURED,
        State.TRANSITION_STATE_SHUTTINGDOWN,
    ),
    TransitionRule(
        Transition.TRANSITION_INACTIVE_SHUTDOWN,
        "shutdown",
        State.PRIMARY_STATE_INACTIVE,
        State.TRANSITION_STATE_SHUTTINGDOWN,
    ),
    TransitionRule(
        Transition.TRANSITION_ACTIVE_SHUTDOWN,
        "shutdown",
        State.PRIMARY_STATE_ACTIVE,
        State.TRANSITION_STATE_SHUTTINGDOWN,
    ),
)


def outcome_rules() -> list[TransitionRule]:
    """The arrows that leave the transition states."""
    return [
        TransitionRule(first + offset, result.value, start, goals[offset])
        for start, (first, *goals) in OUTCOMES.items()
        for offset, result in enumerate(TransitionCallbackReturn)
    ]


GRAPH = (*REQUESTS, *outcome_rules())


def rules_from(state_id: int) -> list[TransitionRule]:
    """The arrows that leave a state."""
    return [rule for rule in GRAPH if rule.start == state_id]
