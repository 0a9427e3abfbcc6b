"""Entry point of the `command_guard` executable."""

from __future__ import annotations

from collections.abc import Sequence

from fastvla_ros.nodes.entry import run_node


def main(args: Sequence[str] | None = None) -> int:
    """Guard the robot until interrupted; it holds at the measured position then."""
    return run_node("fastvla_ros.nodes.command_guard_node", "CommandGuardNode", args=args)
