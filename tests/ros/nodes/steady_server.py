"""The policy server's executable with a `SteadyPolicy` in the model's place."""

from __future__ import annotations

from fastvla_ros.runtime import ensure_ros
from tests.ros.nodes.goal_calls import SteadyPolicy


def main() -> int:
    """Serve until interrupted."""
    ensure_ros()
    from fastvla_ros.nodes import policy_server, policy_server_node

    policy_server_node.load_policy = lambda *_, **__: SteadyPolicy()
    return policy_server.main()
