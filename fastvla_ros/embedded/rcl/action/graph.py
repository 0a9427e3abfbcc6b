"""Actions on the graph, seen through their feedback topics and services."""

from __future__ import annotations

from fastvla_ros.embedded.rcl.node_graph import NamesAndTypes, NodeGraph

FEEDBACK = "/_action/feedback"
FEEDBACK_TYPE = "_FeedbackMessage"


def _actions(topics: NamesAndTypes) -> NamesAndTypes:
    return [
        (name.removesuffix(FEEDBACK), [kind.removesuffix(FEEDBACK_TYPE) for kind in kinds])
        for name, kinds in topics
        if name.endswith(FEEDBACK)
    ]


def get_action_names_and_types(node: NodeGraph) -> NamesAndTypes:
    """Every action with its types."""
    return _actions(node.get_topic_names_and_types())


def get_action_server_names_and_types_by_node(
    node: NodeGraph, remote_node_name: str, remote_node_namespace: str
) -> NamesAndTypes:
    """The actions that a node serves."""
    topics = node.get_publisher_names_and_types_by_node(remote_node_name, remote_node_namespace)
    return _actions(topics)


def get_action_client_names_and_types_by_node(
    node: NodeGraph, remote_node_name: str, remote_node_namespace: str
) -> NamesAndTypes:
    """The actions that a node calls."""
    topics = node.get_subscriber_names_and_types_by_node(remote_node_name, remote_node_namespace)
    return _actions(topics)
