"""The simulated robot as a node: what it judges, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain

PARAMETERS = ["camera_rate_hz:=2.0", "scene_rate_hz:=0.0", "joint_rate_hz:=10.0"]
CLI_ARGS = ["--ros-args", *(part for value in PARAMETERS for part in ("-p", value))]


@pytest.fixture
def probe():
    with reserve_domain() as domain, SharedProcess(domain_id=domain) as process:
        from rclpy.node import Node

        from fastvla_ros.nodes.sim_robot_node import SimRobotNode

        robot = SimRobotNode(cli_args=CLI_ARGS, use_global_arguments=False)
        process.add(robot)
        yield process.add(Node("probe", use_global_arguments=False))
        assert robot.failure is None


def until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(met)


def test_a_task_is_judged_no_longer_than_somebody_says_that_it_runs(probe):
    from std_msgs.msg import String

    from fastvla_msgs.msg import TaskOutcome
    from fastvla_ros.nodes.sim_robot_node import LATCHED

    verdicts: list[Any] = []
    probe.create_subscription(TaskOutcome, "task_outcome", verdicts.append, LATCHED)
    server = probe.create_publisher(String, "current_task", LATCHED)
    server.publish(String(data="pick up the red cube"))
    assert until(lambda: verdicts)
    assert (verdicts[-1].task, verdicts[-1].outcome) == (
        "pick up the red cube", TaskOutcome.UNKNOWN,
    )  # fmt: skip
    time.sleep(2.5)
    assert verdicts[-1].outcome == TaskOutcome.UNKNOWN

    # As after a SIGKILL: nobody says "" any more.
    probe.destroy_publisher(server)
    assert until(lambda: verdicts[-1].outcome == TaskOutcome.FAILURE)
    assert "ended before it was done" in verdicts[-1].detail
