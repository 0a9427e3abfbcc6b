"""The services and topics that an action is made of."""

from __future__ import annotations


def send_goal_service(action: str) -> str:
    """Asks the server to accept a goal."""
    return f"{action}/_action/send_goal"


def cancel_goal_service(action: str) -> str:
    """Asks the server to cancel goals."""
    return f"{action}/_action/cancel_goal"


def get_result_service(action: str) -> str:
    """Answers when the goal has ended."""
    return f"{action}/_action/get_result"


def feedback_topic(action: str) -> str:
    """Feedback of every goal."""
    return f"{action}/_action/feedback"


def status_topic(action: str) -> str:
    """The states of all goals."""
    return f"{action}/_action/status"
