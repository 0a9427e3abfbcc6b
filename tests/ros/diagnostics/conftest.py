"""Nodes on a ROS domain of their own."""

from tests.ros.nodes.conftest import checkpoint, domain_id, system

__all__ = ["checkpoint", "domain_id", "system"]
