"""Entry point of the `policy_server` executable."""

from __future__ import annotations

from collections.abc import Sequence

from fastvla_ros.nodes.entry import run_node


def main(args: Sequence[str] | None = None) -> int:
    """Serve a policy until interrupted; a running goal then ends DEACTIVATED, the robot holds."""
    return run_node("fastvla_ros.nodes.policy_server_node", "PolicyServerNode", args=args)
