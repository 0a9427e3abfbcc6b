"""The guard's rules: names, limits, watchdog, hold at the measured position, the latch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.velocity import VelocityFollower
from fastvla_ros.nodes.command_guard_rules import CommandGuard

CONTRACT = load_contract("tabletop")
NAMES = CONTRACT.action_names
MS = 1_000_000
PERIOD = 33 * MS
ACCELERATION = np.array([joint.max_acceleration for joint in CONTRACT.joints])
ONE_STEP = max(joint.max_velocity for joint in CONTRACT.joints) / 30 + 1e-9
REST = np.array([0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.02])


def guard_at_rest(now_ns: int = 0) -> CommandGuard:
    guard = CommandGuard(CONTRACT)
    guard.on_state(REST, now_ns=now_ns)
    return guard


def test_a_small_step_passes_unchanged_and_the_gripper_apart():
    guard = guard_at_rest()
    target = REST + np.array([0.01, -0.01, 0, 0, 0, 0, 0.005])
    passed = guard.on_command(NAMES, target, now_ns=PERIOD)
    np.testing.assert_allclose(passed.positions, target[:6])
    assert passed.gripper == pytest.approx(0.025)
    assert passed.duration_s == pytest.approx(1 / 30)
    assert guard.report().limited == 0


@given(st.permutations(range(7)))
def test_commands_are_mapped_by_name(order: list[int]):
    target = REST + 0.005
    plain = guard_at_rest().on_command(NAMES, target, now_ns=PERIOD)
    mixed = guard_at_rest().on_command([NAMES[i] for i in order], target[order], now_ns=PERIOD)
    np.testing.assert_array_equal(plain.positions, mixed.positions)
    assert plain.gripper == mixed.gripper


@pytest.mark.parametrize(
    ("names", "positions", "word"),
    [
        (NAMES[:-1], REST[:-1], "gripper"),
        ((*NAMES[:-1], "elbow"), REST, "elbow"),
        ((*NAMES, "joint1"), np.append(REST, 0), "joint1"),
        (NAMES, REST[:-1], "6 values"),
        ((), REST[:0], "no joint"),
        (NAMES, np.where(np.arange(7) == 2, np.nan, REST), "joint3 is not finite"),
        (NAMES, np.where(np.arange(7) == 6, np.inf, REST), "gripper is not finite"),
    ],
)
def test_a_bad_command_is_dropped_whole_and_counted(names, positions, word: str):
    guard = guard_at_rest()
    with pytest.raises(CommandError, match=word):
        guard.on_command(names, positions, now_ns=PERIOD)
    report = guard.report()
    assert (report.received, report.dropped, report.limited) == (1, 1, 0)
    passed = guard.on_command(NAMES, REST, now_ns=2 * PERIOD)
    np.testing.assert_allclose(passed.positions, REST[:6])


def test_the_first_step_is_bounded_from_the_measured_position():
    guard = guard_at_rest()
    passed = guard.on_command(NAMES, np.full(7, 2.0), now_ns=PERIOD)
    assert np.abs(passed.positions - REST[:6]).max() <= ONE_STEP
    report = guard.report()
    assert report.limited == 1
    assert report.limited_joints == NAMES


def test_without_a_measured_position_nothing_passes():
    guard = CommandGuard(CONTRACT)
    with pytest.raises(CommandError, match="joint_states"):
        guard.on_command(NAMES, REST, now_ns=PERIOD)
    guard.on_state(REST, now_ns=0)
    with pytest.raises(CommandError, match="joint_states"):
        guard.on_command(NAMES, REST, now_ns=500 * MS)


def moving_guard() -> CommandGuard:
    guard = guard_at_rest()
    guard.on_command(NAMES, REST + 0.01, now_ns=PERIOD)
    return guard


def test_silence_leads_to_one_hold_at_the_measured_position():
    guard = moving_guard()
    measured = REST + 0.003
    guard.on_state(measured, now_ns=220 * MS)
    assert guard.watchdog(now_ns=PERIOD + 199 * MS) is None
    hold = guard.watchdog(now_ns=PERIOD + 201 * MS)
    assert hold is not None
    np.testing.assert_allclose(hold.positions, measured[:6])
    np.testing.assert_array_equal(hold.velocities, 0)
    assert hold.gripper is None
    assert "no command for 0.2 s" in guard.report().reason
    assert guard.watchdog(now_ns=PERIOD + 900 * MS) is None


def test_a_hold_waits_for_a_joint_state():
    guard = moving_guard()
    for now_ms in (700, 702, 704):
        assert guard.watchdog(now_ns=now_ms * MS) is None
    assert "no command for 0.2 s" in guard.report().reason
    guard.on_state(REST + 0.003, now_ns=705 * MS)
    hold = guard.watchdog(now_ns=720 * MS)
    assert hold is not None
    np.testing.assert_allclose(hold.positions, REST[:6] + 0.003)
    assert guard.watchdog(now_ns=740 * MS) is None
    assert guard.report().holds == 1


def test_a_stop_without_a_joint_state_holds_as_soon_as_one_comes():
    guard = moving_guard()
    assert guard.stop("a person pressed stop", now_ns=700 * MS) is None
    guard.on_state(REST + 0.003, now_ns=705 * MS)
    assert guard.watchdog(now_ns=720 * MS) is not None
    assert guard.report().reason == "a person pressed stop"


def test_before_the_first_command_silence_is_no_reason_to_hold():
    assert guard_at_rest().watchdog(now_ns=10_000 * MS) is None


def test_a_command_ends_the_hold_and_starts_from_the_measured_position():
    guard = moving_guard()
    guard.watchdog(now_ns=400 * MS)
    elsewhere = REST + 0.5
    elsewhere[6] = 0.03
    guard.on_state(elsewhere, now_ns=500 * MS)
    passed = guard.on_command(NAMES, REST, now_ns=501 * MS)
    assert np.abs(passed.positions - elsewhere[:6]).max() <= ONE_STEP
    assert guard.report().reason == ""


def test_a_dropped_command_does_not_feed_the_watchdog():
    guard = moving_guard()
    guard.on_state(REST, now_ns=240 * MS)
    with pytest.raises(CommandError):
        guard.on_command(NAMES, np.full(7, np.nan), now_ns=230 * MS)
    assert guard.watchdog(now_ns=240 * MS) is not None


def test_the_stop_holds_and_latches_until_it_is_reset():
    guard = moving_guard()
    hold = guard.stop("a person pressed stop", now_ns=50 * MS)
    assert hold is not None
    np.testing.assert_allclose(hold.positions, REST[:6])
    report = guard.report()
    assert report.latched
    assert report.reason == "a person pressed stop"
    with pytest.raises(CommandError, match="a person pressed stop"):
        guard.on_command(NAMES, REST, now_ns=60 * MS)
    with pytest.raises(CommandError, match="still come in"):
        guard.reset_stop(now_ns=100 * MS)
    assert guard.report().latched
    guard.reset_stop(now_ns=300 * MS)
    assert not guard.report().latched
    guard.on_state(REST, now_ns=310 * MS)
    guard.on_command(NAMES, REST, now_ns=320 * MS)


def test_the_gripper_is_commanded_on_change_beyond_its_dead_band():
    guard = guard_at_rest()
    sent = []
    for tick, opening in enumerate([0.02, 0.0203, 0.0204, 0.0206, 0.0206]):
        target = REST.copy()
        target[6] = opening
        passed = guard.on_command(NAMES, target, now_ns=(tick + 1) * PERIOD)
        sent.append(passed.gripper)
    assert sent == [pytest.approx(0.02), None, None, pytest.approx(0.0206), None]


def test_a_hold_keeps_the_gripper_s_target():
    guard = guard_at_rest()
    closed = REST.copy()
    closed[6] = 0.005
    assert guard.on_command(NAMES, closed, now_ns=PERIOD).gripper == pytest.approx(0.005)
    measured = REST.copy()
    measured[6] = 0.018  # a cube lies between the fingers
    guard.on_state(measured, now_ns=500 * MS)
    hold = guard.watchdog(now_ns=501 * MS)
    assert hold is not None
    assert hold.gripper is None
    assert guard.on_command(NAMES, closed, now_ns=502 * MS).gripper == pytest.approx(0.005)
    assert guard.report().limited == 0


def speed(arrivals_ms: list[float], per_tick: float) -> tuple[int, float]:
    """Commands that move evenly, arriving unevenly: how many were limited, and where it ended."""
    guard = guard_at_rest()
    passed = None
    for tick, at_ms in enumerate(arrivals_ms):
        now_ns = round(at_ms * MS)
        guard.on_state(REST, now_ns=now_ns)
        target = REST.copy()
        target[0] += per_tick * (tick + 1)
        passed = guard.on_command(NAMES, target, now_ns=now_ns)
    assert passed is not None
    return guard.report().limited, passed.positions[0] - REST[0]


def test_jitter_limits_nothing():
    arrivals = [33.3 * t + (25 if t % 3 == 1 else 0) for t in range(30)]
    limited, moved = speed(arrivals, 0.02)
    assert limited == 0
    assert moved == pytest.approx(0.6)


def test_a_flood_of_commands_moves_no_faster_than_real_time():
    arrivals = [33.3 + 1.0 * t for t in range(300)]
    _, moved = speed(arrivals, 0.1)
    assert moved <= CONTRACT.joints[0].max_velocity * (0.3 + 2 / 30)


def test_an_unreadable_command_is_counted():
    guard = guard_at_rest()
    guard.drop()
    assert (guard.report().received, guard.report().dropped) == (1, 1)


def test_a_clock_that_jumps_back_holds_where_the_robot_is_now():
    guard = guard_at_rest()
    guard.on_state(REST, now_ns=0, stamp_ns=100_000 * MS)
    closed = REST + 0.01
    closed[6] = 0.0
    guard.on_command(NAMES, closed, now_ns=PERIOD)
    elsewhere = REST + 0.4
    elsewhere[6] = 0.04
    hold = guard.on_state(elsewhere, now_ns=2 * PERIOD, stamp_ns=5 * MS)
    assert hold is not None
    np.testing.assert_allclose(hold.positions, elsewhere[:6])
    assert guard.report().reason == "the clock jumped back"
    passed = guard.on_command(NAMES, elsewhere, now_ns=3 * PERIOD)
    np.testing.assert_allclose(passed.positions, elsewhere[:6])
    assert passed.gripper == pytest.approx(0.04)
    assert guard.report().limited == 0


def test_a_clock_that_jumps_back_is_no_reason_to_move():
    guard = guard_at_rest()
    guard.on_state(REST, now_ns=0, stamp_ns=100_000 * MS)
    assert guard.on_state(REST, now_ns=MS, stamp_ns=5 * MS) is None
    assert guard.on_state(REST, now_ns=2 * MS, stamp_ns=4 * MS) is None


def test_after_a_scene_reset_the_gripper_does_not_move_on_its_way():
    guard = guard_at_rest()
    closed = REST.copy()
    closed[6] = 0.0
    for tick in range(3):
        guard.on_command(NAMES, closed, now_ns=(tick + 1) * PERIOD)
    guard.watchdog(now_ns=20 * PERIOD)
    opened = REST.copy()
    opened[6] = 0.042
    guard.on_state(opened, now_ns=30 * PERIOD)
    assert guard.on_command(NAMES, opened, now_ns=30 * PERIOD + MS).gripper == pytest.approx(0.042)
    assert guard.report().limited == 0


def test_a_motion_tells_the_gripper_its_target_anew():
    guard = moving_guard()
    guard.watchdog(now_ns=400 * MS)
    guard.on_state(REST, now_ns=410 * MS)
    again = guard.on_command(NAMES, REST + 0.01, now_ns=420 * MS)
    assert again.gripper == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("velocities", "at_rest"), [(np.zeros(7), True), (np.eye(7)[2], False), (None, False)]
)
def test_it_is_known_whether_the_sender_had_come_to_rest(velocities, at_rest: bool):
    guard = guard_at_rest()
    guard.on_command(NAMES, REST, now_ns=PERIOD, velocities=velocities)
    guard.on_state(REST, now_ns=300 * MS)
    assert guard.watchdog(now_ns=301 * MS) is not None
    assert guard.ended_at_rest is at_rest


JOG = dataclasses.replace(
    CONTRACT, outputs=dataclasses.replace(CONTRACT.outputs, interface="joint_jog")
)


def velocity_guard() -> CommandGuard:
    guard = CommandGuard(JOG, follower=VelocityFollower(JOG))
    guard.on_state(REST, now_ns=0)
    return guard


def test_velocities_lead_to_the_set_point_and_the_gripper_goes_by_position():
    guard = velocity_guard()
    speed = np.array([0.3, 0, 0, 0, 0, -0.3, 0])
    target = REST + speed / 30
    target[6] += 0.005
    passed = guard.on_command(NAMES, target, velocities=speed, now_ns=PERIOD)
    gain = JOG.outputs.position_gain
    np.testing.assert_allclose(passed.velocities, speed[:6] * (1 + gain / 30), rtol=1e-6)
    np.testing.assert_array_equal(passed.positions, REST[:6])
    assert passed.gripper == pytest.approx(0.025)
    assert passed.duration_s == pytest.approx(2 / 30)
    assert guard.report().limited == 0


@given(st.permutations(range(7)))
def test_velocities_are_mapped_by_name(order: list[int]):
    target, speed = REST + 0.005, np.linspace(-0.3, 0.3, 7)
    plain = velocity_guard().on_command(NAMES, target, velocities=speed, now_ns=PERIOD)
    mixed = velocity_guard().on_command(
        [NAMES[i] for i in order], target[order], velocities=speed[order], now_ns=PERIOD
    )
    np.testing.assert_array_equal(plain.velocities, mixed.velocities)


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6), np.full(7, np.inf)])
def test_a_command_with_bad_velocities_is_dropped_whole(bad):
    for guard in (guard_at_rest(), velocity_guard()):
        with pytest.raises(CommandError):
            guard.on_command(NAMES, REST, velocities=bad, now_ns=PERIOD)
        assert guard.report().dropped == 1


def test_where_velocities_are_commanded_two_periods_of_silence_stop_the_arm():
    guard = velocity_guard()
    guard.on_command(NAMES, REST + 0.05, now_ns=PERIOD)
    guard.on_state(REST, now_ns=90 * MS)
    assert guard.watchdog(now_ns=PERIOD + 66 * MS) is None
    hold = guard.watchdog(now_ns=PERIOD + 67 * MS)
    assert hold is not None
    assert not hold.velocities.any()
    assert guard.report().reason == "no command for 0.067 s"
    assert guard.watchdog(now_ns=PERIOD + 200 * MS) is None


def test_velocities_stop_even_when_nothing_is_measured_any_more():
    guard = velocity_guard()
    guard.on_command(NAMES, REST + 0.05, now_ns=PERIOD)
    with pytest.raises(CommandError, match="no fresh joint state"):
        guard.on_command(NAMES, REST + 0.06, now_ns=500 * MS)
    hold = guard.watchdog(now_ns=501 * MS)
    assert hold is not None
    assert not hold.velocities.any()
    assert np.isnan(hold.positions).all()
    stop = guard.stop("a person pressed stop", now_ns=502 * MS)
    assert stop is not None
    assert not stop.velocities.any()


def test_a_sender_at_rest_where_the_arm_is_moves_nothing():
    guard = velocity_guard()
    moved = REST.copy()
    for tick in range(1, 6):
        target = REST + 0.01 * tick
        guard.on_command(NAMES, target, velocities=np.full(7, 0.3), now_ns=tick * PERIOD)
        moved = REST + 0.01 * (tick - 2)
        guard.on_state(moved, now_ns=tick * PERIOD)
    # The last command of a goal: at rest where the arm is, behind the last set point.
    last = guard.on_command(NAMES, moved, velocities=np.zeros(7), now_ns=6 * PERIOD)
    assert np.abs(last.velocities).max() < 0.05


def test_velocities_that_had_to_be_limited_are_counted():
    guard = velocity_guard()
    passed = guard.on_command(NAMES, REST, velocities=np.full(7, 9.0), now_ns=PERIOD)
    assert np.abs(passed.velocities).max() <= ACCELERATION.max() / 30 + 1e-9
    report = guard.report()
    assert report.limited == 1
    assert report.limited_joints == NAMES[:6]


def test_positions_and_velocities_of_passed_commands_agree():
    guard, last = guard_at_rest(), REST[:6]
    for tick in range(1, 20):
        target = REST + 0.3 * np.sin(tick / 6)
        now_ns = round(tick * 1e9 / 30)
        guard.on_state(REST, now_ns=now_ns)
        passed = guard.on_command(NAMES, target, now_ns=now_ns)
        step = passed.velocities * passed.duration_s
        np.testing.assert_allclose(last + step, passed.positions, atol=1e-6)
        last = passed.positions
