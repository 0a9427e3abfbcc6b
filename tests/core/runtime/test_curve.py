"""The way through the rows of a chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.runtime.curve import hermite, monotone_curve

ROWS = st.lists(st.floats(-2, 2), min_size=2, max_size=9)


def curve(rows, *, start_velocity: float = 0.0):
    positions = np.asarray(rows, np.float64)[:, None]
    return monotone_curve(positions, step_s=0.1, start_velocity=np.array([start_velocity]))


@given(ROWS)
def test_it_goes_through_every_row_and_stays_between_two(rows):
    way = curve(rows)
    for index, row in enumerate(rows):
        np.testing.assert_allclose(way.at(0.1 * index).positions, row, atol=1e-9)
    for index in range(len(rows) - 1):
        low, high = sorted(rows[index : index + 2])
        for x in np.linspace(0.001, 0.099, 9):
            assert low - 1e-9 <= way.at(0.1 * index + x).positions[0] <= high + 1e-9


@given(ROWS, st.floats(-3, 3))
def test_velocities_are_continuous_and_the_derivative(rows, start_velocity):
    way = curve(rows, start_velocity=start_velocity)
    at = np.linspace(0.003, way.duration_s - 0.003, 40)
    for t in at:
        slope = (way.at(t + 1e-5).positions - way.at(t - 1e-5).positions) / 2e-5
        np.testing.assert_allclose(way.at(t).velocities, slope, atol=0.05)
    np.testing.assert_allclose(way.at(0).velocities, start_velocity)


@pytest.mark.parametrize(("elapsed_s", "expected"), [(-0.5, 1.0), (0.2, 3.0), (7.0, 3.0)])
def test_it_stands_still_before_and_after(elapsed_s, expected):
    point = curve([1.0, 2.0, 3.0]).at(elapsed_s)
    assert (point.positions[0], point.velocities[0]) == (expected, 0.0)


def test_hermite_meets_both_ends():
    ends = [np.array([v]) for v in (1.0, 2.0, -3.0, 4.0)]
    for at_s, position, velocity in ((0.0, 1.0, -3.0), (0.5, 2.0, 4.0)):
        point = hermite(*ends, over_s=0.5, at_s=at_s)
        np.testing.assert_allclose([point.positions[0], point.velocities[0]], [position, velocity])
