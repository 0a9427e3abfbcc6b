"""No sequence of targets, however wild, leads to a command beyond the contract's limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.limits import CommandLimiter

CONTRACT = load_contract("tabletop")
DT = 1 / 30
LOWER = np.array([j.lower for j in CONTRACT.joints] + [0.0])
UPPER = np.array([j.upper for j in CONTRACT.joints] + [0.042])
VELOCITY = np.array([j.max_velocity for j in CONTRACT.joints] + [0.6])
ACCELERATION = np.array([j.max_acceleration for j in CONTRACT.joints])


@given(arrays(np.float64, (12, 7), elements=st.floats(-1e6, 1e6)))
def test_position_and_velocity_limits_hold_for_any_targets(targets: np.ndarray):
    limiter = CommandLimiter(CONTRACT)
    position = np.zeros(7)
    limiter.reset(position)
    for target in targets:
        out = limiter.limit(target, dt_s=DT)
        assert (out.positions >= LOWER - 1e-9).all()
        assert (out.positions <= UPPER + 1e-9).all()
        assert (np.abs(out.positions - position) <= VELOCITY * DT + 1e-9).all()
        position = out.positions


def test_acceleration_is_bounded_from_rest():
    limiter = CommandLimiter(CONTRACT)
    limiter.reset(np.zeros(7))
    velocity = np.zeros(6)
    for _ in range(4):
        out = limiter.limit(np.array([2.0, 2.0, -2.0, 2.0, 2.0, 2.0, 0.0]), dt_s=DT)
        assert (np.abs(out.velocities[:6] - velocity) <= ACCELERATION * DT + 1e-9).all()
        velocity = out.velocities[:6]
    assert set(out.limited) == {f"joint{i}" for i in range(1, 7)}


def test_a_target_within_the_limits_passes_unchanged():
    limiter = CommandLimiter(CONTRACT)
    limiter.reset(np.zeros(7))
    target = np.array([0.01, 0.01, -0.01, 0.01, 0.01, 0.01, 0.01])
    out = limiter.limit(target, dt_s=DT)
    assert np.allclose(out.positions, target)
    assert out.limited == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_drops_the_command_and_keeps_the_state(bad: float):
    limiter = CommandLimiter(CONTRACT)
    limiter.reset(np.zeros(7))
    target = np.zeros(7)
    target[2] = bad
    with pytest.raises(CommandError, match="joint3"):
        limiter.limit(target, dt_s=DT)
    assert np.allclose(limiter.limit(np.zeros(7), dt_s=DT).positions, 0)


def test_wrong_dimension_and_missing_measurement_are_refused():
    limiter = CommandLimiter(CONTRACT)
    with pytest.raises(CommandError, match="measured"):
        limiter.limit(np.zeros(7), dt_s=DT)
    limiter.reset(np.zeros(7))
    with pytest.raises(CommandError, match="shape"):
        limiter.limit(np.zeros(6), dt_s=DT)
