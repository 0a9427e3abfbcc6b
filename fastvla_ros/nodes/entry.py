"""What every node's executable does: make the node, spin, end with one clear message."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from fastvla_core.errors import FastVLAError
from fastvla_ros.runtime import ensure_ros

# Blocking callbacks (an action, a gripper goal) must never starve timers and sensors.
EXECUTOR_THREADS = 6


def run_node(module: str, class_name: str, *, args: Sequence[str] | None = None) -> int:
    """Spin one node until SIGINT, SIGTERM or shutdown; returns the exit status.

    Args:
        module, class_name: Where the node class is; imported after ROS is in place.
        args: Command line with `--ros-args`; by default the process's own.
    """
    ensure_ros()
    import rclpy
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

    rclpy.init(args=list(args) if args is not None else None)
    node: Any = None
    try:
        node = getattr(importlib.import_module(module), class_name)()
        executor = MultiThreadedExecutor(num_threads=EXECUTOR_THREADS)
        executor.add_node(node)
        executor.spin()
    except FastVLAError as error:
        print(f"{class_name}: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
