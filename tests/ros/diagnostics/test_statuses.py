"""Levels and words: what somebody who is woken at three must know."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.diagnostics import memory
from fastvla_ros.diagnostics.goals import GoalTotals, PathHistory
from fastvla_ros.nodes.command_guard_diagnostics import GuardDiagnostics
from fastvla_ros.nodes.command_guard_rules import GuardReport
from fastvla_ros.nodes.goal_types import GoalCode, GoalEnd, Outcome
from fastvla_ros.nodes.policy_server_diagnostics import ServerState, server_statuses
from fastvla_ros.nodes.sim_robot_diagnostics import SimDiagnostics

CONTRACT = load_contract("tabletop")
MS = 1_000_000
NOW = 10_000 * MS


def stamp(at_ns: int) -> SimpleNamespace:
    time = SimpleNamespace(sec=at_ns // 10**9, nanosec=at_ns % 10**9)
    return SimpleNamespace(stamp=time)


def picture(at_ns: int, *, encoding: str = "rgb8") -> SimpleNamespace:
    data = np.random.default_rng(at_ns).integers(0, 256, 96 * 96 * 3, np.uint8).tobytes()
    return SimpleNamespace(
        header=stamp(at_ns), width=96, height=96, encoding=encoding, step=288, is_bigendian=0,
        data=data,
    )  # fmt: skip


def bridge(*, ages_ms: dict[str, int] | None = None) -> StreamBridge:
    ages = {"front": 20, "wrist": 20, "joint_states": 5, **(ages_ms or {})}
    made = StreamBridge(CONTRACT)
    for camera in ("front", "wrist"):
        made.on_image(camera, picture(NOW - ages[camera] * MS), receive_ns=NOW)
    joints = SimpleNamespace(
        header=stamp(NOW - ages["joint_states"] * MS),
        name=list(CONTRACT.state_names),
        position=[0.0] * 7,
    )
    made.on_joint_state(joints, receive_ns=NOW)
    return made


def state(**parts) -> ServerState:
    return ServerState(
        **{
            "task": "",
            "stop": "",
            "rejection": "",
            "totals": GoalTotals(),
            "paths": PathHistory(),
            **parts,
        }
    )


def statuses(of: ServerState | None = None, *, on: StreamBridge | None = None) -> dict:
    told = server_statuses(of or state(), bridge=on or bridge(), now_ns=NOW)
    return {status.name: status for status in told}


def end(**parts) -> GoalEnd:
    return GoalEnd(
        **{
            "code": GoalCode.TIMEOUT, "message": "not done", "outcome": Outcome.UNKNOWN,
            "elapsed_s": 1.0, "inferences": 3, "commands_sent": 30, "commands_limited": 2,
            "deadline_misses": 1, "latency_p50_s": 0.1, "latency_p99_s": 0.2, **parts,
        }
    )  # fmt: skip


def test_all_is_well():
    told = statuses()
    assert {status.level for status in told.values()} == {"OK"}
    assert list(told) == [
        "serving", "stream front", "stream wrist", "stream joint_states", "latency", "memory",
    ]  # fmt: skip
    assert told["serving"].message == "ready for a goal"
    assert told["stream front"].values["age_s"] == pytest.approx(0.02)


def test_a_running_goal_is_named():
    assert statuses(state(task="wave"))["serving"].message == "runs 'wave'"


def test_a_stop_is_an_error_and_says_what_releases_it():
    status = statuses(state(stop="~/stop was called"))["serving"]
    assert status.level == "ERROR"
    assert "~/reset_stop" in status.message


def test_a_silent_camera_is_an_error_of_its_own_and_a_warning_of_the_server():
    told = statuses(on=bridge(ages_ms={"wrist": 900}))
    assert told["stream wrist"].level == "ERROR"
    assert told["stream front"].level == "OK"
    assert told["serving"].level == "WARN"
    assert "wrist" in told["serving"].message


def test_a_stream_that_never_came_is_stale_and_its_topic_is_named():
    told = statuses(on=StreamBridge(CONTRACT))
    assert told["stream front"].level == "STALE"
    assert "front/image_raw" in told["stream front"].message
    assert told["stream front"].values["age_s"] == "never"


def test_messages_that_cannot_be_used_say_why():
    on = bridge()
    with pytest.raises(MessageError):
        on.on_image("front", picture(NOW, encoding="mono8"), receive_ns=NOW)
    status = statuses(on=on)["stream front"]
    assert status.level == "ERROR"
    assert "unusable" in status.message
    assert status.values["dropped"] == 1


def test_skew_between_cameras_is_a_number():
    values = statuses(on=bridge(ages_ms={"wrist": 50}))["serving"].values
    assert values["camera_skew_s"] == pytest.approx(0.03)


def test_goals_are_counted_by_their_end():
    totals = GoalTotals()
    for code in (GoalCode.TIMEOUT, GoalCode.NONE, GoalCode.TIMEOUT):
        totals.add(end(code=code))
    values = statuses(state(totals=totals))["serving"].values
    assert (values["goals"], values["goals.TIMEOUT"], values["goals.NONE"]) == (3, 2, 1)
    assert (values["commands_limited"], values["deadline_misses"]) == (6, 3)
    assert values["last_goal.end"] == "TIMEOUT"


@pytest.mark.parametrize(("misses", "level"), [(1, "OK"), (5, "WARN")])
def test_late_ticks_are_a_warning_when_they_are_no_accident(misses, level):
    totals = GoalTotals()
    totals.add(end(deadline_misses=misses))
    status = statuses(state(totals=totals))["latency"]
    assert status.level == level
    assert ("too busy" in status.message) == (level == "WARN")


def test_a_gpu_that_is_nearly_full_is_a_warning(monkeypatch):
    gpu = {"vram_free_mib": 100.0, "vram_total_mib": 10_000.0}
    monkeypatch.setattr(memory, "gpu_values", lambda: gpu)
    status = memory.memory_status()
    assert status.level == "WARN"
    assert "nvidia-smi" in status.message


def test_the_process_s_memory_is_a_number():
    assert memory.memory_status().values["rss_mib"] > 10


def report(**parts) -> GuardReport:
    return GuardReport(
        **{
            "latched": False, "reason": "", "limited_joints": (), "received": 0, "limited": 0,
            "dropped": 0, "holds": 0, **parts,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "level", "words"),
    [
        ({}, "OK", "no command comes"),
        ({"received": 30}, "OK", "30 commands passed"),
        ({"reason": "no command for 0.2 s", "holds": 1}, "OK", "holds: no command"),
        (
            {"received": 30, "limited": 4, "limited_joints": ("joint2",)},
            "WARN",
            "4 of 30 commands were limited (joint2)",
        ),
        ({"received": 30, "dropped": 2}, "WARN", "2 of 30 commands were dropped"),
        ({"latched": True, "reason": "~/stop was called"}, "ERROR", "~/reset_stop"),
    ],
)
def test_the_guard_says_what_is_new(parts, level, words):
    judge = GuardDiagnostics()
    judge.statuses(report())
    (status,) = judge.statuses(report(**parts))
    assert (status.level, words in status.message) == (level, True)


def test_what_the_guard_dropped_long_ago_is_no_warning():
    judge = GuardDiagnostics()
    old = report(received=100, dropped=5, limited=3)
    judge.statuses(old)
    (status,) = judge.statuses(dataclasses.replace(old, received=130))
    assert status.level == "OK"


@pytest.mark.parametrize(("lost_ms", "level"), [(0, "OK"), (30, "OK"), (400, "WARN")])
def test_a_simulation_that_is_too_slow_is_a_warning(lost_ms, level):
    now = iter([0, 1000 * MS])
    loop = SimpleNamespace(lost_ns=0)
    judge = SimDiagnostics(loop, now_ns=lambda: next(now))
    loop.lost_ns = lost_ms * MS
    (status,) = judge.statuses()
    assert status.level == level
    assert status.values["real_time_factor"] == pytest.approx(1 - lost_ms / 1000)
    assert ("use_sim_time" in status.message) == (level == "WARN")
