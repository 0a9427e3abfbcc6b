"""What every program needs: a life with rclpy, and its share of a core."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future


@contextlib.contextmanager
def executing(node: Node) -> Iterator[SingleThreadedExecutor]:
    """An executor for the node; both, and rclpy, end with the block."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        yield executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def spin_until(
    executor: SingleThreadedExecutor, done: Future, *, timeout_s: float, missing: str
) -> None:
    """Run callbacks until the future is done; SystemExit names what is `missing` when it is not."""
    executor.spin_until_future_complete(done, timeout_s)
    if not done.done():
        raise SystemExit(f"{missing} within {timeout_s:.0f} s")


def spin_until_stopped(executor: SingleThreadedExecutor) -> None:
    """Run callbacks until SIGINT."""
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


class CpuShare:
    """The share of one core that this process uses from the first `start` on."""

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Count from now on; a second call changes nothing."""
        if self._since is None:
            self._since = (time.process_time(), time.monotonic())

    def read(self) -> float:
        """The share since `start`; 1 is a whole core."""
        assert self._since is not None
        cpu_s, wall_s = self._since
        return (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
