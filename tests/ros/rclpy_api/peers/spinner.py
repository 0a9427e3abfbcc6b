"""Spins until a signal or the end of the context; says how it ended."""

import sys

from fastvla_ros.runtime import ensure_ros

ensure_ros()

import rclpy  # noqa: E402
from rclpy._rclpy_pybind11 import RCLError  # noqa: E402
from rclpy.executors import (  # noqa: E402
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("spinner")
    pooled = "pool" in sys.argv
    executor = MultiThreadedExecutor(2) if pooled else SingleThreadedExecutor()
    executor.add_node(node)
    node.create_timer(0.02, lambda: print("tick", flush=True))
    try:
        executor.spin()
        print("returned", flush=True)
    except (KeyboardInterrupt, ExternalShutdownException, RCLError) as error:
        print(type(error).__name__, flush=True)
    if "untidy" not in sys.argv:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    print("end", flush=True)


main()
