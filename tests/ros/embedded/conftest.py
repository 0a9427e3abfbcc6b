"""Every run of these tests has a DDS domain of its own, on loopback."""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastvla_ros.runtime import ensure_ros

# Where ROS 2 is sourced, rclpy is the real one and the embedded subset stays out of the way.
REAL_ROS = importlib.util.find_spec("rclpy") is not None
collect_ignore_glob = ["*"] if REAL_ROS else []

TIMEOUT_S = 10.0


def free_domain_id() -> int:
    """A domain that nobody on this machine uses, by its first discovery port."""
    for candidate in random.sample(range(10, 100), 90):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7410 + 250 * candidate))
            except OSError:
                continue
            return candidate
    raise RuntimeError("no free DDS domain")


if not REAL_ROS:
    ensure_ros()


@pytest.fixture(scope="session", autouse=True)
def domain_id() -> Iterator[int]:
    """The domain of this run, also for child processes."""
    chosen = free_domain_id()
    before = os.environ.get("ROS_DOMAIN_ID")
    os.environ["ROS_DOMAIN_ID"] = str(chosen)
    yield chosen
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


class Ros:
    """A context with an executor; `until` spins until a condition holds."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Any] = []

    def node(self, name: str, **kwargs: Any) -> Any:
        from rclpy.node import Node

        return self.add(Node(name, context=self.context, **kwargs))

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> bool:
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.05)
        return True

    def result(self, future: Any, timeout_s: float = TIMEOUT_S) -> Any:
        self.executor.spin_until_future_complete(future, timeout_s)
        assert future.done(), "the future did not end in time"
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def ros() -> Iterator[Ros]:
    """A fresh context; everything is closed afterwards."""
    session = Ros()
    yield session
    session.close()
