"""Runs one node of the bench as a child that ends with it: PARENT MODULE CLASS, then ROS's own."""

from __future__ import annotations

import sys

from fastvla_ros.bringup_child import end_with
from fastvla_ros.nodes.entry import run_node


def main() -> int:
    """Spin the node until interrupted."""
    parent, module, class_name, *arguments = sys.argv[1:]
    end_with(int(parent))
    return run_node(module, class_name, args=[class_name, *arguments])


if __name__ == "__main__":
    sys.exit(main())
