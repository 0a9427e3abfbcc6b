"""The goal state machine: how it runs, and every way it ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastvla_core.errors import ObservationError, PolicyError, RemoteUnavailableError
from fastvla_ros.nodes.goal_types import GoalCode, GoalState, Outcome, Tick
from tests.ros.bridge.messages import MS
from tests.ros.nodes.session_rig import REST, START_NS, TICK_NS, Rig


@pytest.fixture
def make_rig():
    rigs: list[Rig] = []

    def make(**options) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig) -> Rig:
    return make_rig()


def test_it_senses_infers_and_commands_at_the_control_rate(rig: Rig):
    rig.tick(30)
    states = [f.state for f in rig.feedback]
    assert states[0] is GoalState.INFERRING
    assert states[-1] is GoalState.EXECUTING
    assert len(rig.commands) == 29
    assert rig.commands[0].names == rig.bridge.contract.action_names
    assert rig.commands[0].duration_s == pytest.approx(1 / 30)
    np.testing.assert_allclose(rig.commands[0].positions, REST, atol=0.01)


def test_two_action_steps_are_executed_between_two_observations(rig: Rig):
    rig.tick(40)
    stamps = [o.stamp_ns for o in rig.policy.observations]
    assert len(stamps) >= 6
    assert {round((b - a) / MS) for a, b in itertools.pairwise(stamps)} <= {200, 233}


def test_commands_never_jump(rig: Rig):
    rig.tick(60)
    positions = np.array([c.positions for c in rig.commands])
    assert np.abs(np.diff(positions, axis=0)).max() < 0.02


def test_new_data_starts_a_due_inference_between_two_ticks(rig: Rig):
    rig.ros_ns += MS
    rig.sense()
    rig.session.on_data(rig.now)
    rig.settle()
    assert len(rig.policy.observations) == 1
    rig.session.on_data(rig.now)
    rig.settle()
    assert len(rig.policy.observations) == 1


def test_samples_from_before_the_goal_are_not_used(rig: Rig):
    rig.tick(3)
    rig.start("another")
    rig.silent = {"front"}
    rig.policy.observations.clear()
    rig.tick(3)
    assert rig.policy.observations == []
    assert rig.feedback[-1].state is GoalState.WAITING_SENSORS
    assert rig.feedback[-1].blocking_stream == "front"


def test_a_policy_gets_the_moments_that_it_reads_and_a_new_goal_starts_without_any(rig: Rig):
    rig.policy.history_s = (0.2, 0.1)
    rig.start()
    rig.tick(40)
    first, *later = rig.policy.observations
    assert first.earlier == ()
    assert later
    newest = later[-1]
    before_ms = [round((newest.stamp_ns - past.stamp_ns) / MS) for past in newest.earlier]
    assert before_ms == [200, 100]
    assert not np.array_equal(newest.earlier[1].state, newest.state)
    rig.policy.observations.clear()
    rig.start("another")
    rig.tick(3)
    assert rig.policy.observations[0].earlier == ()


def test_each_goal_resets_the_policy(rig: Rig):
    rig.tick(3)
    rig.start()
    rig.tick(3)
    assert rig.policy.seeds == [0, 0]


@pytest.mark.parametrize("stream", ["front", "wrist", "joint_states"])
def test_a_stream_that_never_comes_is_named_in_bounded_time(make_rig, stream: str):
    rig = make_rig(sensor_timeout_s=1.0)
    rig.silent = {stream}
    rig.tick(40)
    assert rig.end is not None
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert stream in rig.end.message
    assert "nothing yet" in rig.end.message
    assert rig.end.elapsed_s == pytest.approx(1.0, abs=0.1)
    assert {f.state for f in rig.feedback} == {GoalState.WAITING_SENSORS, GoalState.STOPPING}
    assert rig.commands == []


@pytest.mark.parametrize("stream", ["front", "wrist"])
def test_a_stream_that_goes_quiet_holds_then_aborts(make_rig, stream: str):
    rig = make_rig(sensor_timeout_s=1.0)
    rig.tick(20)
    rig.silent = {stream}
    before = len(rig.commands)
    rig.tick(60)
    assert GoalState.HOLDING in {f.state for f in rig.feedback}
    assert rig.end is not None
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert f"'{stream}'" in rig.end.message
    # max_age_s is 0.15: five ticks of motion, one hold at the measured position, then silence
    assert len(rig.commands) - before <= 6
    hold = rig.commands[-1]
    np.testing.assert_array_equal(hold.velocities, 0)


def test_a_frozen_camera_holds_then_aborts(make_rig):
    rig = make_rig(sensor_timeout_s=1.0)
    rig.tick(20)
    rig.frozen = {"wrist"}
    rig.tick(120)
    assert rig.end is not None
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert "'wrist' is frozen" in rig.end.message


def test_a_short_silence_is_held_through(rig: Rig):
    rig.tick(20)
    rig.silent = {"front"}
    rig.tick(15)
    assert rig.feedback[-1].state is GoalState.HOLDING
    assert rig.feedback[-1].blocking_stream == "front"
    rig.silent = set()
    rig.tick(10)
    assert rig.end is None
    assert rig.feedback[-1].state is GoalState.EXECUTING
    assert rig.feedback[-1].blocking_stream == ""
    steps = np.abs(np.diff([c.positions for c in rig.commands], axis=0)).max()
    assert steps < 0.02


def test_a_hold_keeps_the_gripper_closed(rig: Rig):
    rig.tick(20)
    commanded = rig.commands[-1].positions[6]
    rig.state[6] = 0.0
    rig.silent = {"front"}
    rig.tick(8)
    hold = rig.commands[-1]
    assert not hold.velocities.any()
    assert hold.positions[6] == pytest.approx(commanded, abs=0.02)
    assert hold.positions[6] > 0.02


@pytest.mark.parametrize(
    "code",
    [
        GoalCode.CANCELED,
        GoalCode.PREEMPTED,
        GoalCode.DEACTIVATED,
        GoalCode.SAFETY_STOP,
        GoalCode.CONTROLLER_LOST,
    ],
)
@pytest.mark.parametrize("after", [0, 1, 15])
def test_a_request_ends_at_the_next_tick_and_holds(rig: Rig, code: GoalCode, after: int):
    rig.tick(after)
    rig.state += 0.005
    measured = rig.state.copy()
    sent = len(rig.commands)
    assert rig.session.request_end(code, "because")
    tick = rig.tick()
    assert tick.end is not None
    assert tick.end.code is code
    assert tick.end.message == "because"
    if sent:
        assert tick.command is not None
        np.testing.assert_allclose(tick.command.positions[:6], measured[:6], atol=1e-6)
        np.testing.assert_array_equal(tick.command.velocities, 0)
    else:
        assert tick.command is None
    assert tick.end.commands_sent == len(rig.commands)
    assert rig.session.tick(rig.now) == Tick()
    assert not rig.session.request_end(GoalCode.CANCELED, "too late")


def test_cancel_in_the_middle_of_an_inference(rig: Rig):
    rig.tick(10)
    rig.policy.go_on.clear()
    rig.tick(10)
    assert rig.worker.busy
    rig.session.request_end(GoalCode.CANCELED, "")
    tick = rig.tick()
    assert tick.end is not None
    assert tick.end.code is GoalCode.CANCELED
    rig.policy.go_on.set()
    rig.settle()
    assert rig.worker.poll() is None


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
def test_a_verdict_ends_the_goal_without_an_error(rig: Rig, outcome: Outcome):
    rig.tick(10)
    rig.session.request_end(GoalCode.NONE, "seen", outcome=outcome)
    rig.tick()
    assert rig.end is not None
    assert (rig.end.code, rig.end.outcome) == (GoalCode.NONE, outcome)


def test_the_deadline(make_rig):
    rig = make_rig(timeout_s=0.5)
    rig.tick(60)
    assert rig.end is not None
    assert rig.end.code is GoalCode.TIMEOUT
    assert rig.end.elapsed_s == pytest.approx(0.5, abs=0.05)
    assert rig.end.outcome is Outcome.UNKNOWN


def test_a_safety_stop_is_never_reported_as_a_timeout(make_rig):
    rig = make_rig(timeout_s=0.5)
    rig.tick(14)
    rig.session.request_end(GoalCode.NONE, "", outcome=Outcome.SUCCESS)
    rig.session.request_end(GoalCode.CANCELED, "")
    rig.session.request_end(GoalCode.SAFETY_STOP, "guard")
    rig.tick(5)
    assert rig.end is not None
    assert rig.end.code is GoalCode.SAFETY_STOP


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyError("bad chunk"), GoalCode.INVALID_ACTION),
        (ObservationError("too long"), GoalCode.INFERENCE_FAILED),
        (RuntimeError("out of memory"), GoalCode.INFERENCE_FAILED),
    ],
)
def test_an_error_of_the_policy_ends_without_any_motion(rig: Rig, error, code: GoalCode):
    rig.policy.error = error
    rig.tick(10)
    assert rig.end is not None
    assert rig.end.code is code
    assert str(error) in rig.end.message
    assert rig.commands == []


def test_a_nan_in_the_middle_stops_the_motion(rig: Rig):
    rig.tick(10)
    rig.policy.nan = True
    rig.tick(10)
    assert rig.end is not None
    assert rig.end.code is GoalCode.INVALID_ACTION
    assert "joint3" in rig.end.message
    assert all(np.isfinite(c.positions).all() for c in rig.commands)
    np.testing.assert_array_equal(rig.commands[-1].velocities, 0)


def test_without_its_remote_policy_the_plan_plays_out_and_the_robot_holds(rig: Rig):
    rig.tick(20)
    rig.policy.error = RemoteUnavailableError("the link is down")
    rig.ticks.clear()
    rig.tick(60)
    assert rig.end is None
    assert [f.state for f in rig.feedback][-1] is GoalState.HOLDING
    assert rig.feedback[-1].blocking_stream == "policy"
    held = [not np.any(command.velocities) for command in rig.commands]
    assert not any(held[:5])
    assert held[-1]
    failed, rig.policy.error = len(rig.policy.observations), None
    rig.ticks.clear()
    rig.tick(10)
    assert rig.feedback[-1].state is GoalState.EXECUTING
    assert rig.feedback[-1].blocking_stream == ""
    # What it goes on with was sensed after the comeback.
    assert rig.policy.observations[failed].stamp_ns >= rig.ros_ns - 10 * TICK_NS
    assert len(rig.policy.observations) < failed + 6


def test_a_remote_policy_that_stays_away_ends_the_goal(make_rig):
    rig = make_rig(inference_timeout_s=0.5)
    rig.tick(10)
    rig.policy.error = RemoteUnavailableError("the link is down")
    rig.tick(60)
    assert rig.end is not None
    assert rig.end.code is GoalCode.INFERENCE_FAILED
    assert "the link is down" in rig.end.message
    assert rig.end.elapsed_s > 0.5 + 9 * TICK_NS * 1e-9
    np.testing.assert_array_equal(rig.commands[-1].velocities, 0)


def test_an_inference_that_never_returns(make_rig):
    rig = make_rig(inference_timeout_s=0.5)
    rig.policy.go_on.clear()
    rig.tick(30)
    assert rig.end is not None
    assert rig.end.code is GoalCode.INFERENCE_FAILED
    assert "has not answered" in rig.end.message


def test_an_inference_of_an_earlier_goal_that_never_returns(make_rig):
    rig = make_rig(inference_timeout_s=0.5)
    rig.policy.go_on.clear()
    rig.tick(3)
    rig.session.request_end(GoalCode.CANCELED, "")
    rig.tick()
    rig.ticks.clear()
    rig.start()
    rig.tick(30)
    assert rig.end is not None
    assert rig.end.code is GoalCode.INFERENCE_FAILED
    assert rig.commands == []


def test_more_steps_than_a_chunk_has_are_its_steps(make_rig):
    rig = make_rig(execute_steps=100)
    rig.tick(60)
    stamps = [o.stamp_ns for o in rig.policy.observations]
    assert len(stamps) >= 2
    # One step before the last is reached, so that the robot need not stop.
    assert round((stamps[1] - stamps[0]) / MS) in (700, 733)


def test_a_dry_run_previews_and_sends_nothing(make_rig):
    rig = make_rig(dry_run=True, timeout_s=1.0)
    rig.tick(60)
    assert rig.end is not None
    assert sum(t.chunk is not None for t in rig.ticks) >= 4
    assert rig.commands == []
    assert rig.end.commands_sent == 0


def test_half_speed_moves_half_as_far(make_rig):
    moved = []
    for scale in (1.0, 0.5):
        rig = make_rig(speed_scale=scale)
        rig.tick(30)
        moved.append(rig.commands[-1].positions[0] - REST[0])
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.2)


def test_a_clock_that_jumps_back_holds_and_goes_on(rig: Rig):
    rig.tick(20)
    rig.ros_ns = START_NS - 3_600_000 * MS
    assert rig.tick().command is None
    tick = rig.tick()
    assert tick.command is not None
    np.testing.assert_array_equal(tick.command.velocities, 0)
    rig.tick(20)
    assert rig.end is None
    assert rig.feedback[-1].state is GoalState.EXECUTING
    steps = np.abs(np.diff([c.positions for c in rig.commands], axis=0)).max()
    assert steps < 0.02


def test_late_ticks_are_counted(rig: Rig):
    rig.tick(5)
    rig.tick(dt_ns=round(1.4 * TICK_NS))
    rig.tick(dt_ns=round(1.6 * TICK_NS))
    rig.tick(5)
    rig.session.request_end(GoalCode.CANCELED, "")
    rig.tick()
    assert rig.end is not None
    assert rig.end.deadline_misses == 1


def test_the_result_counts_what_happened(rig: Rig):
    rig.tick(31)
    rig.session.on_limited(3)
    rig.session.request_end(GoalCode.CANCELED, "")
    rig.tick()
    assert rig.end is not None
    assert rig.end.commands_limited == 3
    assert rig.end.commands_sent == len(rig.commands) == 31
    assert rig.end.inferences == sum(t.chunk is not None for t in rig.ticks)
    assert 0 < rig.end.latency_p50_s <= rig.end.latency_p99_s
    assert len(rig.path) == rig.end.inferences
    assert all(p.started_ns <= p.finished_ns for p in rig.path)
