"""The policy server's life cycle: silent until active, bounded, and orderly in any order."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

from fastvla_core.errors import FastVLAError
from tests.ros.nodes.goal_calls import (
    Goal,
    GoalCaller,
    SteadyPolicy,
    call,
    change_state,
    done,
    executing,
)
from tests.ros.nodes.robot_rig import CONTRACT, System, executable, wait_until


def listen(system: System) -> list[str]:
    """The names of the topics of the policy server on which something comes, one per message."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String
    from trajectory_msgs.msg import JointTrajectory

    from fastvla_msgs.msg import ActionChunk

    heard: list[str] = []
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for kind, topic, qos in (
        (JointTrajectory, "command", 10),
        (ActionChunk, "policy_server/action_chunk", 10),
        (String, "current_task", latched),
        (DiagnosticArray, "/diagnostics", 10),
    ):
        system.robot.create_subscription(kind, topic, lambda _, name=topic: heard.append(name), qos)
    return heard


def state_of(system: System) -> str:
    from lifecycle_msgs.srv import GetState

    return str(call(system, "policy_server/get_state", kind=GetState).current_state.label)


def test_unconfigured_and_inactive_it_publishes_nothing(system: System, steady: SteadyPolicy):
    heard = listen(system)
    node = system.serve("steady", autostart=False)
    assert node.count_publishers("command") == 0
    assert Goal(system).wait().status == "REJECTED"
    assert change_state(system, "configure")
    wait_until(lambda: system.robot.count_publishers("command") == 1)
    assert Goal(system).wait().status == "REJECTED"
    time.sleep(1.5)  # diagnostics would come once a second
    assert heard == []
    assert change_state(system, "activate")
    wait_until(lambda: heard, what="diagnostics")


def test_while_it_is_active_no_search_for_garbage_goes_through_all_that_was_loaded(
    system: System, steady: SteadyPolicy
):
    system.serve("steady", autostart=False)
    assert change_state(system, "configure")
    assert gc.get_freeze_count() == 0
    assert change_state(system, "activate")
    assert gc.get_freeze_count() > 10_000
    assert change_state(system, "deactivate")
    assert gc.get_freeze_count() == 0


def test_it_is_warmed_up_before_the_first_goal_in_the_thread_that_infers(
    system: System, steady: SteadyPolicy
):
    threads: list[int] = []
    infer = steady.infer

    def infer_here(*args: Any) -> Any:
        threads.append(threading.get_ident())
        return infer(*args)

    steady.infer = infer_here
    system.serve("steady", autostart=False)
    assert change_state(system, "configure")
    warm = len(threads)
    assert warm >= 2
    assert set(steady.observations[0].images) == {c.name for c in CONTRACT.policy_cameras}
    assert change_state(system, "activate")
    executing(system, timeout_s=1.0).wait()
    assert len(threads) > warm
    assert set(threads) == {threads[0]}


@pytest.fixture
def hanging(steady: SteadyPolicy, monkeypatch: pytest.MonkeyPatch):
    """Loading waits for this event."""
    from fastvla_ros.nodes import policy_server_node

    go_on = threading.Event()

    def load(*_: Any, **__: Any) -> SteadyPolicy:
        assert go_on.wait(60)
        return steady

    monkeypatch.setattr(policy_server_node, "load_policy", load)
    yield go_on
    go_on.set()


def test_a_load_that_hangs_ends_the_transition(
    system: System, hanging: threading.Event, capfd: pytest.CaptureFixture[str]
):
    system.serve("steady", autostart=False, load_timeout_s=0.5)
    begin = time.monotonic()
    assert not change_state(system, "configure")
    assert time.monotonic() - begin < 5
    assert state_of(system) == "unconfigured"
    assert "was not loaded within 0.5 s" in capfd.readouterr().err
    assert not change_state(system, "configure")
    assert "has not come back yet" in capfd.readouterr().err
    hanging.set()
    wait_until(lambda: change_state(system, "configure"), what="the next try")
    assert change_state(system, "activate")
    executing(system, timeout_s=1.0).wait()


def test_a_warm_up_that_hangs_ends_the_transition(system: System, steady: SteadyPolicy):
    steady.go_on.clear()
    with pytest.raises(FastVLAError, match=r"was not loaded within 0\.5 s"):
        system.serve("steady", load_timeout_s=0.5)
    steady.go_on.set()


def test_a_policy_that_fails_to_warm_up_is_one_clear_error(system: System, steady: SteadyPolicy):
    steady.error = RuntimeError("out of memory")
    with pytest.raises(FastVLAError, match="out of memory"):
        system.serve("steady")
    assert system.robot.count_publishers("command") == 0


def test_a_shutdown_ends_the_goal_and_leaves_no_command_publisher(
    system: System, steady: SteadyPolicy
):
    node = system.serve("steady")
    goal = executing(system)
    assert change_state(system, "active_shutdown")
    report = goal.wait()
    assert (report.status, report.error) == ("ABORTED", "DEACTIVATED")
    assert state_of(system) == "finalized"
    assert node.count_publishers("command") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_finishes_its_goal_and_leaves_no_command_publisher(
    system: System, number: int
):
    with executable("steady_server", package="tests.ros.nodes") as process:
        system.client.wait_for_server(timeout_s=60)
        goal = executing(system)
        assert system.robot.count_publishers("command") == 1
        process.send_signal(number)
        report = goal.wait()
        assert (report.status, report.error) == ("ABORTED", "DEACTIVATED")
        assert process.wait(20) == 0
    wait_until(lambda: len(system.robot.commands) == report.commands_sent)
    assert not np.any(system.robot.commands[-1][1].points[0].velocities)
    wait_until(lambda: system.robot.count_publishers("command") == 0, what="the end of `command`")


@pytest.mark.parametrize("label", ["configure", "activate", "cleanup", "inactive_shutdown"])
def test_a_transition_that_is_not_possible_now_changes_nothing(
    system: System, steady: SteadyPolicy, label: str
):
    system.serve("steady")
    goal = executing(system, timeout_s=1.5)
    assert not change_state(system, label)
    assert state_of(system) == "active"
    assert goal.wait().error == "TIMEOUT"


def test_a_failed_load_of_another_checkpoint_keeps_the_old_one(
    system: System, steady: SteadyPolicy, monkeypatch: pytest.MonkeyPatch
):
    from fastvla_msgs.srv import LoadCheckpoint
    from fastvla_ros.nodes import policy_server_node

    system.serve("steady")
    assert change_state(system, "deactivate")

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(policy_server_node, "load_policy", fail)
    answer = call(
        system, "policy_server/load_checkpoint", kind=LoadCheckpoint,
        request=LoadCheckpoint.Request(checkpoint_id="other"),
    )  # fmt: skip
    assert (answer.success, answer.message) == (False, "RuntimeError: out of memory")
    assert change_state(system, "activate")
    assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_a_checkpoint_that_comes_after_the_clean_up_is_let_go(
    system: System, steady: SteadyPolicy, hanging: threading.Event
):
    from fastvla_msgs.srv import LoadCheckpoint

    hanging.set()
    node = system.serve("steady")
    assert change_state(system, "deactivate")
    hanging.clear()
    client = system.robot.create_client(LoadCheckpoint, "policy_server/load_checkpoint")
    assert client.wait_for_service(timeout_sec=5.0)
    loading = client.call_async(LoadCheckpoint.Request(checkpoint_id="other"))
    time.sleep(0.2)
    assert change_state(system, "cleanup")
    hanging.set()
    answer = done(loading)
    assert not answer.success
    assert "not inactive" in answer.message
    assert node.count_publishers("command") == 0
    assert Goal(system).wait().status == "REJECTED"


def test_transitions_and_goals_all_at_once(system: System, steady: SteadyPolicy):
    steady.latency_s = 0.02
    system.serve("steady", on_busy="preempt")
    caller = GoalCaller(system)
    labels = ["configure", "activate", "deactivate", "cleanup"]
    results: list[Any] = []
    end = time.monotonic() + 4.0

    def change(seed: int) -> None:
        choose = random.Random(seed)
        while time.monotonic() < end:
            change_state(system, choose.choice(labels))

    def send() -> None:
        while time.monotonic() < end:
            handle = caller.begin(timeout_s=0.3)
            if handle.accepted:
                results.append(handle.get_result_async())
            time.sleep(0.02)

    threads = [threading.Thread(target=change, args=(seed,)) for seed in (1, 2)]
    threads.append(threading.Thread(target=send))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    codes = {done(result).result.error_code for result in results}
    ends = caller.kind.Result
    assert codes <= {ends.TIMEOUT, ends.PREEMPTED, ends.DEACTIVATED}
    while state_of(system) != "active":
        change_state(
            system, {"unconfigured": "configure", "inactive": "activate"}[state_of(system)]
        )
    assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"
