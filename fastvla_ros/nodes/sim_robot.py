"""Entry point of the `sim_robot` executable."""

from __future__ import annotations

from collections.abc import Sequence

from fastvla_ros.nodes.entry import run_node


def main(args: Sequence[str] | None = None) -> int:
    """Run the simulated robot until it is interrupted; returns the exit status."""
    return run_node("fastvla_ros.nodes.sim_robot_node", "SimRobotNode", args=args)
