"""Server and guard in processes of their own, as on a robot: one of them dies, the other acts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.ros.nodes.goal_calls import GoalCaller, executing
from tests.ros.nodes.robot_rig import CONTRACT, Stalls, System, executable, wait_until

WATCHDOG_S = CONTRACT.watchdog.timeout_s
# How often the guard looks, and how often the robot says where it is.
PERIODS_S = 0.05


@contextmanager
def robot_cell(system: System, *, log: Path | None = None) -> Iterator[tuple]:
    """A guard and a server, each a process: (guard, server). The arm lags behind its set points."""
    system.robot.follow = 0.5
    with (
        executable("command_guard", log=log) as guard,
        executable("steady_server", package="tests.ros.nodes") as server,
    ):
        system.client.wait_for_server(timeout_s=60)
        wait_until(
            lambda: system.robot.count_publishers("joint_trajectory") == 1,
            timeout_s=60,
            what="the guard",
        )
        yield guard, server


def start_goal(system: System) -> None:
    """A goal whose end nobody waits for."""
    assert GoalCaller(system).begin(timeout_s=60.0).accepted
    wait_until(lambda: len(system.robot.outputs) > 15, timeout_s=30, what="motion")


def moving(message) -> bool:
    return bool(np.any(message.points[0].velocities))


def assert_holds_where_it_is(system: System) -> None:
    """The last output is a hold at the measured position, which is not the last set point."""
    (_, before), (_, hold) = system.robot.outputs[-2:]
    where = system.robot.measured[-1][:6]
    np.testing.assert_allclose(hold.points[0].positions, where, atol=1e-6)
    assert np.abs(np.array(before.points[0].positions) - where).max() > 1e-4


def test_a_killed_server_leads_to_a_hold_at_the_measured_position(system: System, tmp_path: Path):
    log = tmp_path / "guard.log"
    with robot_cell(system, log=log) as (_guard, server):
        start_goal(system)
        with Stalls() as stalls:
            server.kill()
            wait_until(lambda: not moving(system.robot.outputs[-1][1]), what="the hold")
            stall_s = stalls.take_s()
        held_after_s = system.robot.outputs[-1][0] - system.robot.commands[-1][0]
        assert held_after_s < WATCHDOG_S + PERIODS_S + 4 * stall_s
        assert_holds_where_it_is(system)
        count = len(system.robot.outputs)
        time.sleep(3 * WATCHDOG_S)
        assert len(system.robot.outputs) == count
    assert "holding at the measured position: no command for 0.2 s" in log.read_text()


def test_a_goal_that_ends_is_no_reason_for_the_guard_to_warn(system: System, tmp_path: Path):
    log = tmp_path / "guard.log"
    with robot_cell(system, log=log):
        executing(system, timeout_s=1.0).wait()
        count = len(system.robot.outputs)
        wait_until(lambda: len(system.robot.outputs) > count, what="the guard's hold")
        time.sleep(2 * WATCHDOG_S)
    assert "holding" not in log.read_text()
    assert not moving(system.robot.outputs[-1][1])


def test_a_server_that_stands_still_is_held_for_until_it_goes_on(system: System):
    with robot_cell(system) as (_guard, server):
        start_goal(system)
        server.send_signal(signal.SIGSTOP)
        wait_until(lambda: not moving(system.robot.outputs[-1][1]), what="the hold")
        assert_holds_where_it_is(system)
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: moving(system.robot.outputs[-1][1]), what="motion")
        steps = np.diff([o.points[0].positions for _, o in system.robot.outputs], axis=0)
        assert np.abs(steps).max() < max(j.max_velocity for j in CONTRACT.joints) / 10


def test_a_killed_guard_ends_the_goal_as_a_lost_controller(system: System):
    with robot_cell(system) as (guard, _server):
        goal = executing(system)
        wait_until(lambda: len(system.robot.outputs) > 5, what="motion")
        guard.kill()
        assert goal.wait().error == "CONTROLLER_LOST"
