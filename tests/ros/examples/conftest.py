"""The fixtures of the nodes' tests and of the whole graph's."""

from tests.ros.nodes.conftest import checkpoint, domain_id, steady, system
from tests.ros.test_end_to_end import expert, graph, own_domain

__all__ = ["checkpoint", "domain_id", "expert", "graph", "own_domain", "steady", "system"]
