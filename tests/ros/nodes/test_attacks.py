"""What careless and hostile clients, sensors and neighbours do: each ends with one clear code."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.ros.nodes.goal_calls import Goal, GoalCaller, SteadyPolicy, call, done, executing
from tests.ros.nodes.robot_rig import TASK, System, wait_until

# A service keeps the latest ten requests that it has not served; more at once are lost in ROS.
AT_ONCE, WAVES = 8, 5


def flood(caller: GoalCaller, **fields: Any) -> list[Any]:
    """The handles of many goals, sent in waves."""
    handles = []
    for _ in range(WAVES):
        answers = [caller.send(**fields) for _ in range(AT_ONCE)]
        handles += [done(answer) for answer in answers]
    return handles


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"task": "\n\t "}, "the instruction is empty"),
        ({"task": "x" * 1_000_000}, "the instruction has 1000000 characters"),
        ({"checkpoint_id": "other" * 100_000}, "is not loaded, 'steady' is"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"timeout_s": -1.0}, "timeout_s is -1.0"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"timeout_s": 1e300}, "at most 3600 s"),
        ({"speed_scale": float("nan")}, "speed_scale is nan"),
        ({"speed_scale": -0.5}, "speed_scale is -0.5"),
        ({"speed_scale": 1.5}, "speed_scale is 1.5"),
        ({"speed_scale": 5e-324}, "expected 0.001 to 1"),
    ],
)
def test_a_goal_that_makes_no_sense_is_rejected_with_the_reason_in_the_log(
    system: System, steady: SteadyPolicy, capfd: pytest.CaptureFixture[str], fields, reason: str
):
    system.serve("steady")
    assert not GoalCaller(system).begin(**{"task": TASK, **fields}).accepted
    log = capfd.readouterr().err
    assert f"goal rejected: {reason}" in log or reason in log
    assert len(log) < 5_000
    assert system.robot.commands == []


def test_of_two_clients_at_once_one_is_served(system: System, steady: SteadyPolicy):
    system.serve("steady")
    clients = [GoalCaller(system), GoalCaller(system)]
    for _ in range(10):
        answers = [client.send(timeout_s=0.3) for client in clients]
        handles = [done(answer) for answer in answers]
        assert [handle.accepted for handle in handles].count(True) == 1
        (served,) = (handle for handle in handles if handle.accepted)
        assert done(served.get_result_async()).result.error_code == clients[0].kind.Result.TIMEOUT


def test_a_flood_of_goals_leaves_the_first_alone(system: System, steady: SteadyPolicy):
    system.serve("steady")
    caller = GoalCaller(system)
    first = caller.begin(timeout_s=5.0)
    assert not any(handle.accepted for handle in flood(caller))
    assert done(first.get_result_async()).result.error_code == caller.kind.Result.TIMEOUT


def test_a_flood_of_goals_that_preempt_ends_all_but_the_last(system: System, steady: SteadyPolicy):
    system.serve("steady", on_busy="preempt")
    caller = GoalCaller(system)
    handles = flood(caller, timeout_s=2.0)
    assert all(handle.accepted for handle in handles)
    codes = [done(handle.get_result_async()).result.error_code for handle in handles]
    assert codes.count(caller.kind.Result.PREEMPTED) == AT_ONCE * WAVES - 1
    assert codes.count(caller.kind.Result.TIMEOUT) == 1
    assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_a_cancel_of_every_goal_cancels_the_one_that_runs(system: System, steady: SteadyPolicy):
    from action_msgs.srv import CancelGoal

    system.serve("steady")
    goal = executing(system)
    answer = call(system, "policy_server/execute_task/_action/cancel_goal", kind=CancelGoal)
    assert len(answer.goals_canceling) == 1
    assert goal.wait().status == "CANCELED"


def test_a_stop_between_acceptance_and_start_is_a_safety_stop(
    system: System, steady: SteadyPolicy, monkeypatch: pytest.MonkeyPatch
):
    node = system.serve("steady")
    desk = node._goals._desk
    accepted = desk.accepted

    def stop_first(handle: Any) -> None:
        assert call(system, "policy_server/stop").success
        accepted(handle)

    monkeypatch.setattr(desk, "accepted", stop_first)
    node._goals._action.register_handle_accepted_callback(stop_first)
    caller = GoalCaller(system)
    end = done(caller.begin().get_result_async())
    assert (end.status, end.result.error_code) == (6, caller.kind.Result.SAFETY_STOP)
    assert system.robot.commands == []


def test_a_deactivation_between_acceptance_and_start_says_so(system: System, steady: SteadyPolicy):
    node = system.serve("steady")
    accepted = node._goals._desk.accepted

    def deactivate_first(handle: Any) -> None:
        node.trigger_deactivate()
        accepted(handle)

    node._goals._action.register_handle_accepted_callback(deactivate_first)
    caller = GoalCaller(system)
    end = done(caller.begin().get_result_async())
    assert (end.status, end.result.error_code) == (6, caller.kind.Result.DEACTIVATED)


def test_a_policy_that_fails_in_the_motion_holds_and_the_next_goal_runs(
    system: System, steady: SteadyPolicy
):
    system.serve("steady")
    goal = executing(system, commands=8)
    steady.error = RuntimeError("out of memory")
    report = goal.wait()
    assert (report.status, report.error) == ("ABORTED", "INFERENCE_FAILED")
    assert "out of memory" in report.message
    wait_until(lambda: len(system.robot.commands) == report.commands_sent)
    assert not np.any(system.robot.commands[-1][1].points[0].velocities)
    steady.error = None
    assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_a_policy_that_hangs_costs_one_goal(system: System, steady: SteadyPolicy):
    system.serve("steady", inference_timeout_s=0.5)
    goal = executing(system)
    steady.go_on.clear()
    report = goal.wait()
    steady.go_on.set()
    assert report.error == "INFERENCE_FAILED"
    assert "has not answered" in report.message
    assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_a_guard_that_talks_nonsense_costs_no_goal_its_result(system: System, steady: SteadyPolicy):
    from fastvla_msgs.msg import GuardStatus
    from fastvla_ros.nodes.command_guard_node import STATUS_QOS

    publisher = system.robot.create_publisher(GuardStatus, "command_guard/status", STATUS_QOS)
    publisher.publish(GuardStatus(commands_limited=2**50))
    system.serve("steady")
    goal = executing(system, timeout_s=1.5)
    for limited in (2**64 - 1, 0, 2**50):
        publisher.publish(
            GuardStatus(reason="?" * 100_000, limited_joints=["elbow"], commands_limited=limited)
        )
        time.sleep(0.1)
    assert goal.wait().error == "TIMEOUT"


def test_a_guard_that_falls_silent_is_a_lost_controller(
    system: System, steady: SteadyPolicy, monkeypatch: pytest.MonkeyPatch
):
    from fastvla_msgs.msg import GuardStatus
    from fastvla_ros.nodes import policy_server_safety
    from fastvla_ros.nodes.command_guard_node import STATUS_QOS

    monkeypatch.setattr(policy_server_safety, "_GUARD_TIMEOUT_NS", 1_000_000_000)
    publisher = system.robot.create_publisher(GuardStatus, "command_guard/status", STATUS_QOS)
    system.serve("steady")
    goal = executing(system)
    publisher.publish(GuardStatus())
    assert goal.wait().error == "CONTROLLER_LOST"


def test_a_robot_whose_clock_jumps_back_is_held_and_named(system: System, steady: SteadyPolicy):
    system.serve("steady", sensor_timeout_s=0.5)
    goal = executing(system)
    system.robot.clock_ns = -3_600_000_000_000
    report = goal.wait()
    assert report.error == "STALE_SENSOR"
    assert "HOLDING" in goal.states


@pytest.fixture
def clock(system: System):
    """Publishes `/clock`, and lets every stamp of the robot follow; the key is its offset [ns]."""
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock

    publisher = system.robot.create_publisher(Clock, "/clock", 10)
    offset = {"ns": -1_000_000_000_000}

    def tick() -> None:
        system.robot.clock_ns = offset["ns"]
        now_ns = system.robot.get_clock().now().nanoseconds + offset["ns"]
        publisher.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))

    system.robot.create_timer(0.005, tick)
    return offset


def test_time_that_jumps_back_holds_and_the_goal_goes_on(
    system: System, steady: SteadyPolicy, clock: dict[str, int]
):
    system.serve("steady", use_sim_time=True, sensor_timeout_s=10.0)
    goal = executing(system, timeout_s=4.0, commands=8)
    before = len(goal.progress)
    clock["ns"] -= 60_000_000_000
    wait_until(lambda: "HOLDING" in goal.states[before:], what="the hold")
    wait_until(lambda: goal.states[-1] == "EXECUTING", what="the motion")
    holds = [m for _, m in system.robot.commands if not np.any(m.points[0].velocities)]
    assert holds
    assert goal.wait().error == "TIMEOUT"


def test_a_dry_run_shows_chunks_and_commands_nothing(system: System, steady: SteadyPolicy):
    from fastvla_msgs.msg import ActionChunk

    chunks: list[Any] = []
    system.robot.create_subscription(ActionChunk, "policy_server/action_chunk", chunks.append, 10)
    system.serve("steady")
    caller = GoalCaller(system)
    end = done(caller.begin(timeout_s=1.5, dry_run=True).get_result_async()).result
    assert (end.error_code, end.commands_sent) == (caller.kind.Result.TIMEOUT, 0)
    assert system.robot.commands == []
    assert len(chunks) >= 2


def test_a_goal_needs_pictures_from_after_its_start(system: System, steady: SteadyPolicy):
    system.serve("steady", sensor_timeout_s=0.5)
    executing(system, timeout_s=0.5).wait()
    system.robot.silent = {"front"}
    seen = len(steady.observations)
    report = Goal(system).wait()
    assert report.error == "STALE_SENSOR"
    assert "'front'" in report.message
    assert len(steady.observations) == seen
