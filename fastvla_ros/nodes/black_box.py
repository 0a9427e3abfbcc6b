"""Entry point of the `black_box` executable."""

from __future__ import annotations

from collections.abc import Sequence

from fastvla_ros.nodes.entry import run_node


def main(args: Sequence[str] | None = None) -> int:
    """Keep the last seconds before each abnormal end of a goal, until interrupted."""
    return run_node("fastvla_ros.nodes.black_box_node", "BlackBoxNode", args=args)
