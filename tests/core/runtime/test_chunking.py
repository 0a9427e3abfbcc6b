"""The executor: on time, without jumps, by name, and still at the end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvla_core.errors import PolicyError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.runtime.chunking import ChunkExecutor
from fastvla_core.types import ActionChunk

TABLETOP = load_contract("tabletop")
assert TABLETOP.gripper is not None
# A gripper that opens as far as a joint turns, so that one sequence of rows fits every column.
CONTRACT = dataclasses.replace(
    TABLETOP, gripper=dataclasses.replace(TABLETOP.gripper, lower=-10.0, upper=10.0)
)
NAMES = CONTRACT.action_names
A = len(NAMES)
MS = 1_000_000
T0 = 5_000 * MS


def chunk(rows, *, stamp_ns=T0, names=NAMES, dt_s=0.1, chunk_id=0) -> ActionChunk:
    positions = np.asarray(rows, np.float64)
    if positions.ndim == 1:
        positions = np.repeat(positions[:, None], len(names), axis=1)
    return ActionChunk(
        stamp_ns=stamp_ns, chunk_id=chunk_id, names=names, dt_s=dt_s, positions=positions
    )


def started(rows, **options) -> ChunkExecutor:
    """An executor that plays a chunk from T0 on, and has begun to."""
    executor = ChunkExecutor(CONTRACT, **options)
    executor.reset(np.zeros(A), now_ns=T0)
    executor.submit(chunk(rows))
    at(executor, 0)
    return executor


def at(executor: ChunkExecutor, ms: float) -> np.ndarray:
    setpoint = executor.sample(T0 + round(ms * MS))
    assert setpoint is not None
    return setpoint.positions


def test_nothing_is_sampled_before_a_chunk():
    executor = ChunkExecutor(CONTRACT)
    assert executor.sample(T0) is None
    executor.reset(np.ones(A), now_ns=T0)
    assert executor.sample(T0 + MS) is None
    assert executor.exhausted(T0)


def test_row_k_is_reached_at_the_stamp_plus_k_plus_one_steps():
    executor = started([0.1, 0.3, 0.2])
    for ms, expected in [(50, 0.05), (100, 0.1), (150, 0.2), (200, 0.3), (250, 0.25), (300, 0.2)]:
        np.testing.assert_allclose(at(executor, ms), expected, atol=1e-12)


def test_velocities_are_the_slope_of_the_positions():
    executor = started([0.1, 0.3, 0.2])
    for ms in (120, 180, 230, 299):
        setpoint = executor.sample(T0 + ms * MS)
        ahead = (at(executor, ms + 0.001) - at(executor, ms)) / 1e-6
        assert setpoint is not None
        np.testing.assert_allclose(setpoint.velocities, ahead, rtol=1e-4)


def test_velocities_hold_during_a_switch_over_too():
    executor = started([0.1, 0.2, 0.3, 0.4])
    at(executor, 150)
    executor.submit(chunk([0.5, 0.6, 0.7], stamp_ns=T0 + 100 * MS, chunk_id=1))
    at(executor, 180)
    setpoint = executor.sample(T0 + 210 * MS)
    ahead = (at(executor, 210.001) - at(executor, 210)) / 1e-6
    assert setpoint is not None
    np.testing.assert_allclose(setpoint.velocities, ahead, rtol=1e-4)


def test_it_stands_still_after_the_last_target():
    executor = started([0.1, 0.3])
    assert not executor.exhausted(T0 + 199 * MS)
    assert executor.exhausted(T0 + 200 * MS)
    setpoint = executor.sample(T0 + 900 * MS)
    assert setpoint is not None
    np.testing.assert_allclose(setpoint.positions, 0.3)
    np.testing.assert_array_equal(setpoint.velocities, 0.0)


def test_the_time_that_inference_took_is_skipped():
    executor = started([0.1, 0.2, 0.3, 0.4])
    at(executor, 130)
    np.testing.assert_allclose(at(executor, 300), 0.3)


@pytest.mark.parametrize("chunks", [0, 1])
def test_from_a_standstill_a_late_chunk_plays_from_its_beginning(chunks: int):
    executor = ChunkExecutor(CONTRACT)
    executor.reset(np.zeros(A), now_ns=T0 - 900 * MS)
    if chunks:
        executor.submit(chunk([0.0] * 8, stamp_ns=T0 - 800 * MS))
        at(executor, -800)
    executor.submit(chunk([1.0, 2.0], chunk_id=1))
    for ms, expected in [(400, 0.0), (450, 0.5), (500, 1.0), (600, 2.0), (700, 2.0)]:
        np.testing.assert_allclose(at(executor, ms), expected, atol=1e-9)


def test_a_switch_over_in_motion_fades_into_the_new_plan():
    executor = started([0.1] * 8, blend_s=0.1)
    at(executor, 200)
    executor.submit(chunk([0.5] * 8, stamp_ns=T0 + 100 * MS, chunk_id=1))
    for ms, expected in [(220, 0.1), (270, 0.3), (320, 0.5)]:
        np.testing.assert_allclose(at(executor, ms), expected)


_ROWS = st.lists(st.floats(-0.3, 0.3), min_size=8, max_size=8)


@settings(max_examples=100)
@given(st.lists(st.tuples(_ROWS, st.integers(0, 36)), min_size=2, max_size=6))
def test_consecutive_setpoints_never_jump(chunks: list):
    executor = ChunkExecutor(CONTRACT)
    executor.reset(np.zeros(A), now_ns=T0)
    previous, now_ms = np.zeros(A), 0
    for index, (rows, latency_ticks) in enumerate(chunks):
        next_chunk = chunk(previous[0] + np.cumsum(rows), stamp_ns=T0 + now_ms * MS, chunk_id=index)
        for tick in range(latency_ticks + 40):
            if tick == latency_ticks:
                executor.submit(next_chunk)
            setpoint = executor.sample(T0 + now_ms * MS)
            if setpoint is not None:
                # In 5 ms: 3 rad/s of the plan, and 1/20 of two plans' distance (at most 4.8).
                assert np.abs(setpoint.positions - previous).max() <= 0.015 + 0.24
                previous = setpoint.positions
            now_ms += 5


def test_the_switch_itself_is_exactly_continuous():
    executor = started([0.4, -0.2, 0.3, 0.1])
    before = at(executor, 170)
    executor.submit(chunk([-0.5, 0.9, 0.0], stamp_ns=T0 + 100 * MS, chunk_id=1))
    np.testing.assert_allclose(at(executor, 170), before, atol=1e-12)


def test_half_speed_takes_twice_the_time():
    executor = started([0.1, 0.3], speed_scale=0.5)
    np.testing.assert_allclose(at(executor, 200), 0.1)
    np.testing.assert_allclose(at(executor, 300), 0.2)
    assert executor.steps_left(T0 + 300 * MS) == 1


def test_columns_are_mapped_by_name():
    order = [3, 0, 6, 1, 5, 2, 4]
    values = np.arange(A, dtype=np.float64) / 10
    executor = ChunkExecutor(CONTRACT)
    executor.submit(
        chunk(values[order][None].repeat(3, axis=0), names=tuple(NAMES[i] for i in order))
    )
    np.testing.assert_allclose(at(executor, 300), values)


def test_other_names_are_refused():
    executor = ChunkExecutor(CONTRACT)
    with pytest.raises(PolicyError, match="columns"):
        executor.submit(chunk([0.0], names=("a", "b", "c", "d", "e", "f", "g")))


@pytest.mark.parametrize("changes", [{"rows": np.zeros((0, A))}, {"rows": [0.0], "dt_s": 0.0}])
def test_a_chunk_without_rows_or_time_is_refused(changes: dict):
    with pytest.raises(PolicyError, match="nothing of it can be executed"):
        ChunkExecutor(CONTRACT).submit(chunk(**changes))


def test_reset_forgets_a_chunk_that_waits():
    executor = started([0.5, 0.5])
    executor.reset(np.zeros(A), now_ns=T0)
    assert executor.sample(T0 + MS) is None


def test_steps_left_counts_down():
    executor = ChunkExecutor(CONTRACT)
    executor.submit(chunk([0.1, 0.2, 0.3]))
    assert executor.steps_left(T0) == 3
    at(executor, 0)
    left = [executor.steps_left(T0 + ms * MS) for ms in (0, 99, 100, 250, 300, 999)]
    assert left == [3, 3, 2, 1, 0, 0]


def test_a_gripper_beyond_its_ends_is_at_its_end_and_the_joints_are_left_alone():
    executor = ChunkExecutor(TABLETOP)
    executor.submit(chunk([-0.5, -0.5]))
    np.testing.assert_allclose(at(executor, 200), [*[-0.5] * (A - 1), 0.0])
    executor.reset()
    executor.submit(chunk([0.5, 0.5]))
    np.testing.assert_allclose(at(executor, 200), [*[0.5] * (A - 1), 0.042])
