"""Actions: long tasks with feedback, results and cancelling."""

from fastvla_ros.embedded.rcl.action.client import ActionClient
from fastvla_ros.embedded.rcl.action.graph import (
    get_action_client_names_and_types_by_node,
    get_action_names_and_types,
    get_action_server_names_and_types_by_node,
)
from fastvla_ros.embedded.rcl.action.policies import CancelResponse, GoalResponse
from fastvla_ros.embedded.rcl.action.server import ActionServer

__all__ = [
    "ActionClient",
    "ActionServer",
    "CancelResponse",
    "GoalResponse",
    "get_action_client_names_and_types_by_node",
    "get_action_names_and_types",
    "get_action_server_names_and_types_by_node",
]
