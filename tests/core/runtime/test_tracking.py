"""Following a target within limits: bounded always, undelayed where possible, never run over."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastvla_core.robot.limits import MotionLimits
from fastvla_core.runtime.curve import Setpoint
from fastvla_core.runtime.tracking import SetpointTracker

DT = 1 / 30
VELOCITY, ACCELERATION = 2.0, 8.0


def limits(*, lower: float = -10.0, upper: float = 10.0) -> MotionLimits:
    one = np.ones(1)
    return MotionLimits(
        lower=lower * one,
        upper=upper * one,
        velocity=VELOCITY * one,
        acceleration=ACCELERATION * one,
    )


def setpoint(position: float, velocity: float = 0.0) -> Setpoint:
    return Setpoint(positions=np.array([position]), velocities=np.array([velocity]))


def follow(targets, *, dt_s=DT, start: float = 0.0, **changes) -> np.ndarray:
    """Positions, the start included, along (position, velocity) targets."""
    tracker = SetpointTracker(limits(**changes))
    tracker.reset(np.array([start]))
    found = [tracker.follow(setpoint(*target), dt_s=dt_s).positions[0] for target in targets]
    return np.array([start, *found])


_TARGET = st.tuples(st.floats(-20, 20), st.floats(-20, 20))


@settings(max_examples=200)
@given(st.lists(_TARGET, min_size=1, max_size=60))
@example([(0, 1.0), (0, 2.0), (0, 0), (0, 0), (0, 0), (0, 5.960464477539063e-08), (0, 0), (0, 0)])
def test_no_targets_lead_beyond_a_limit(targets):
    path = follow(targets)
    velocity = np.diff(path, prepend=0.0) / DT
    assert (np.abs(path) <= 10.0 + 1e-9).all()
    assert (np.abs(velocity) <= VELOCITY + 1e-9).all()
    assert (np.abs(np.diff(velocity, prepend=0.0)) <= ACCELERATION * DT + 1e-9).all()


@settings(max_examples=100)
@given(st.lists(st.tuples(_TARGET, st.floats(0.001, DT)), min_size=1, max_size=60))
def test_steps_of_any_length_keep_the_position_limits(steps):
    tracker = SetpointTracker(limits(upper=0.3, lower=-0.3))
    tracker.reset(np.zeros(1))
    last = 0.0
    for target, dt_s in steps:
        position = tracker.follow(setpoint(*target), dt_s=dt_s).positions[0]
        assert abs(position) <= 0.3 + 1e-9
        assert abs(position - last) <= VELOCITY * dt_s + 1e-9
        last = position


def test_what_is_within_the_limits_passes_unchanged_and_undelayed():
    times = np.arange(1, 60) * DT
    # Begins at rest with an acceleration of 0.4 w^2 = 3.6.
    way, speed = 0.4 * (1 - np.cos(3 * times)), 1.2 * np.sin(3 * times)
    tracker = SetpointTracker(limits())
    tracker.reset(np.zeros(1))
    for position, velocity in zip(way, speed):
        found = tracker.follow(setpoint(position, velocity), dt_s=DT)
        assert found.positions[0] == position
        assert found.velocities[0] == velocity


@given(st.floats(0.01, 5.0))
def test_a_step_is_reached_without_running_over(height: float):
    path = follow([(height, 0.0)] * 120)
    assert path.max() <= height + 1e-9
    assert abs(path[-1] - height) < 1e-9
    assert (np.diff(path) >= -1e-12).all()


def test_a_step_takes_hardly_longer_than_any_robot_must():
    path = follow([(1.0, 0.0)] * 120)
    arrived = int(np.argmax(np.abs(path - 1.0) < 1e-6)) * DT
    shortest = 1.0 / VELOCITY + VELOCITY / ACCELERATION
    assert abs(arrived - shortest) <= 2 * DT


def test_a_moving_target_is_met_at_its_own_velocity():
    # 0.5 ahead and running away at half the largest velocity.
    times = np.arange(1, 90) * DT
    path = follow([(0.5 + 1.0 * t, 1.0) for t in times])
    gap = 0.5 + 1.0 * times - path[1:]
    assert abs(gap[-1]) < 1e-9
    assert gap.min() > -1e-9


def test_a_target_beyond_the_end_of_a_joint_is_approached_gently():
    path = follow([(5.0, 3.0)] * 90, upper=1.0)
    assert path.max() <= 1.0 + 1e-12
    assert path[-1] > 0.999
    braking = np.diff(path, n=2) / DT**2
    assert braking.min() >= -ACCELERATION - 1e-9


def test_a_robot_that_starts_beyond_its_end_comes_back():
    path = follow([(0.9, 0.0)] * 60, upper=1.0, start=1.01)
    assert path[-1] < 1.0
    assert (np.abs(np.diff(path, n=2)) <= ACCELERATION * DT**2 + 1e-9).all()


def test_unbounded_acceleration_only_bounds_the_velocity():
    wide = limits()
    tracker = SetpointTracker(
        MotionLimits(
            lower=wide.lower,
            upper=wide.upper,
            velocity=wide.velocity,
            acceleration=np.array([np.inf]),
        )
    )
    tracker.reset(np.zeros(1))
    path = [tracker.follow(setpoint(0.1), dt_s=DT).positions[0] for _ in range(3)]
    np.testing.assert_allclose(path, [VELOCITY * DT, 0.1, 0.1])


def test_a_share_of_the_limits_is_left_free():
    tracker = SetpointTracker(limits(), share=0.5)
    tracker.reset(np.zeros(1))
    path = np.array(
        [0.0, *(tracker.follow(setpoint(9.0), dt_s=DT).positions[0] for _ in range(60))]
    )
    velocity = np.diff(path) / DT
    assert np.isclose(velocity.max(), 0.5 * VELOCITY)
    assert np.isclose(np.diff(velocity).max() / DT, 0.5 * ACCELERATION)


def test_without_a_start_it_begins_where_the_target_is():
    tracker = SetpointTracker(limits())
    assert tracker.follow(setpoint(3.0), dt_s=DT).positions[0] == 3.0
