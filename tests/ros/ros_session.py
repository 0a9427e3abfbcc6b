"""The one fixture of the tests that speak rclpy's API, on whichever rclpy imports.

In a shell where ROS 2 is sourced that is the real one, anywhere else the embedded runtime.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvla_ros.demo.domain import reserve_domain
from fastvla_ros.runtime import ensure_ros

# Where ROS 2 is sourced, rclpy is the real one and the embedded runtime stays out of the way.
REAL_ROS = importlib.util.find_spec("rclpy") is not None
ensure_ros()

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 10.0


class Ros:
    """A context with an executor; `until` spins until a condition holds."""

    def __init__(self, args: list[str] | None = None) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(args=["test", *(args or [])], context=self.context)
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

    def spin(self, duration_s: float) -> None:
        """Run what comes for a while: to see that something does not happen."""
        self.until(lambda: False, duration_s)

    def result(self, future: Any, timeout_s: float = TIMEOUT_S) -> Any:
        self.executor.spin_until_future_complete(future, timeout_s)
        assert future.done(), "the future did not end in time"
        return future.result()

    def destroy(self, node: Any) -> None:
        """Destroy a node before the end."""
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="session", autouse=True)
def domain_id() -> Iterator[int]:
    """The domain of this run, also for child processes."""
    before = os.environ.get("ROS_DOMAIN_ID")
    with reserve_domain() as chosen:
        os.environ["ROS_DOMAIN_ID"] = str(chosen)
        yield chosen
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


@pytest.fixture
def ros() -> Iterator[Ros]:
    """A fresh context; everything is closed afterwards."""
    session = Ros()
    yield session
    session.close()


@pytest.fixture
def ros_with() -> Iterator[Callable[..., Ros]]:
    """Makes contexts from command lines."""
    sessions: list[Ros] = []

    def make(*args: str) -> Ros:
        sessions.append(Ros(list(args)))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def child_environment() -> dict[str, str]:
    """The environment of a child process that imports this project from the checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python script; it is killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def run(script: Path, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=child_environment(),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], expected: str) -> None:
    """Read a child's output up to a line."""
    assert process.stdout is not None
    seen = []
    while line := process.stdout.readline():
        seen.append(line)
        if line.strip() == expected:
            return
    raise AssertionError(f"the peer ended without '{expected}': {''.join(seen)}")
