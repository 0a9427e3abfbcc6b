"""The executor: on time, without jumps, within the limits, by name, and still at the end."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvla_core.errors import PolicyError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.limits import CommandLimiter, motion_limits
from fastvla_core.runtime.chunking import ChunkExecutor
from fastvla_core.runtime.curve import Setpoint
from fastvla_core.types import ActionChunk

TABLETOP = load_contract("tabletop")
assert TABLETOP.gripper is not None
# A gripper that opens as far as a joint turns, so that one sequence of rows fits every column.
CONTRACT = dataclasses.replace(
    TABLETOP,
    gripper=dataclasses.replace(TABLETOP.gripper, lower=-10.0, upper=10.0, max_velocity=4.0),
    joints=tuple(dataclasses.replace(j, lower=-10.0, upper=10.0) for j in TABLETOP.joints),
)
NAMES = CONTRACT.action_names
A = len(NAMES)
MS = 1_000_000
T0 = 5_000 * MS
TICK_NS = round(1e9 / CONTRACT.control_rate_hz)
MERGES = ("auto", "pause", "switch", "ensemble", "rtc", "rtc_trained")


def chunk(rows, *, stamp_ns=T0, names=NAMES, dt_s=0.1, chunk_id=0) -> ActionChunk:
    positions = np.asarray(rows, np.float64)
    if positions.ndim == 1:
        positions = np.repeat(positions[:, None], len(names), axis=1)
    return ActionChunk(
        stamp_ns=stamp_ns, chunk_id=chunk_id, names=names, dt_s=dt_s, positions=positions
    )


def started(rows, *, merge="switch", **options) -> ChunkExecutor:
    """An executor that plays a chunk from T0 on."""
    executor = ChunkExecutor(CONTRACT, merge=merge, **options)
    executor.reset(np.zeros(A), now_ns=T0)
    executor.submit(chunk(rows), now_ns=T0)
    return executor


def sample(executor: ChunkExecutor, ms: float) -> Setpoint:
    setpoint = executor.sample(T0 + round(ms * MS))
    assert setpoint is not None
    return setpoint


def ride(executor: ChunkExecutor, *, start_ms: int, end_ms: int) -> dict[int, Setpoint]:
    """Setpoints every 5 ms, by their time."""
    return {ms: sample(executor, ms) for ms in range(start_ms, end_ms + 1, 5)}


def test_nothing_is_sampled_before_a_chunk():
    executor = ChunkExecutor(CONTRACT)
    assert executor.sample(T0) is None
    executor.reset(np.ones(A), now_ns=T0)
    assert executor.sample(T0 + MS) is None
    assert executor.exhausted(T0)
    assert executor.due_ns is None


def test_row_k_is_reached_at_the_stamp_plus_k_plus_one_steps():
    way = ride(started([0.05, 0.15, 0.2]), start_ms=5, end_ms=400)
    for ms, expected in [(100, 0.05), (200, 0.15), (300, 0.2), (400, 0.2)]:
        np.testing.assert_allclose(way[ms].positions, expected, atol=1e-9)


def test_between_two_rows_it_stays_between_them():
    rows = [0.05, 0.15, 0.15, 0.05, 0.06]
    way = ride(started(rows), start_ms=5, end_ms=500)
    for index, (low, high) in enumerate(itertools.pairwise([0.0, *rows])):
        inside = [way[100 * index + ms].positions for ms in range(5, 100, 5)]
        assert np.min(inside) >= min(low, high) - 1e-9
        assert np.max(inside) <= max(low, high) + 1e-9


def test_velocities_are_the_slope_of_the_positions():
    executor = started([0.05, 0.15, 0.12, 0.05])
    way = ride(executor, start_ms=1, end_ms=151)
    executor.submit(
        chunk([0.1, 0.15, 0.2], stamp_ns=T0 + 100 * MS, chunk_id=1), now_ns=T0 + 151 * MS
    )
    way |= ride(executor, start_ms=156, end_ms=396)
    for ms in range(11, 390, 5):
        slope = (way[ms + 5].positions - way[ms - 5].positions) / 0.010
        np.testing.assert_allclose(way[ms].velocities, slope, atol=0.08)


def test_it_stands_still_after_the_last_target():
    executor = started([0.1, 0.2])
    assert not executor.exhausted(T0 + 199 * MS)
    assert executor.exhausted(T0 + 200 * MS)
    last = ride(executor, start_ms=5, end_ms=400)[400]
    np.testing.assert_allclose(last.positions, 0.2)
    np.testing.assert_array_equal(last.velocities, 0.0)


def test_the_time_that_inference_took_is_skipped():
    executor = started([0.0] * 8)
    executor.submit(chunk([0.1, 0.2, 0.3, 0.4], stamp_ns=T0 + 100 * MS), now_ns=T0 + 300 * MS)
    way = ride(executor, start_ms=305, end_ms=500)
    np.testing.assert_allclose(way[500].positions, 0.4)


@pytest.mark.parametrize("chunks", [0, 1])
def test_from_a_standstill_a_late_chunk_plays_from_its_beginning(chunks: int):
    executor = ChunkExecutor(CONTRACT, merge="switch")
    executor.reset(np.zeros(A), now_ns=T0 - 900 * MS)
    if chunks:
        executor.submit(chunk([0.0] * 8, stamp_ns=T0 - 800 * MS), now_ns=T0 - 800 * MS)
    executor.submit(chunk([0.1, 0.2], chunk_id=1), now_ns=T0 + 400 * MS)
    way = ride(executor, start_ms=400, end_ms=700)
    for ms, expected in [(400, 0.0), (500, 0.1), (600, 0.2), (700, 0.2)]:
        np.testing.assert_allclose(way[ms].positions, expected, atol=1e-9)


def test_a_switch_over_in_motion_fades_into_the_new_plan():
    executor = started([0.1] * 8, blend_s=0.1)
    ride(executor, start_ms=5, end_ms=220)
    executor.submit(chunk([0.2] * 8, stamp_ns=T0 + 100 * MS, chunk_id=1), now_ns=T0 + 220 * MS)
    way = ride(executor, start_ms=225, end_ms=320)
    for ms, expected in [(225, 0.1), (270, 0.15), (320, 0.2)]:
        np.testing.assert_allclose(way[ms].positions, expected, atol=1e-3)


def test_the_switch_itself_is_continuous_in_position_and_velocity():
    executor = started([0.1, 0.15, 0.1, 0.05])
    before = ride(executor, start_ms=5, end_ms=170)[170]
    executor.submit(
        chunk([0.0, 0.2, 0.1], stamp_ns=T0 + 100 * MS, chunk_id=1), now_ns=T0 + 170 * MS
    )
    after = sample(executor, 171)
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-3)
    np.testing.assert_allclose(after.velocities, before.velocities, atol=0.12)


# -- limits ------------------------------------------------------------------------------------


def _drive(executor: ChunkExecutor, chunks: list[tuple[list[float], int]]) -> np.ndarray:
    """Setpoints at the control rate from rest; each chunk arrives some ticks after its stamp."""
    executor.reset(np.zeros(A), now_ns=T0)
    path, tick = [np.zeros(A), np.zeros(A)], 0
    for index, (rows, latency) in enumerate(chunks):
        now_ns = T0 + tick * TICK_NS
        executor.prefix(now_ns)
        late = chunk(rows, stamp_ns=now_ns, chunk_id=index)
        for step in range(latency + 6):
            now_ns = T0 + tick * TICK_NS
            if step == latency:
                executor.submit(late, now_ns=now_ns)
            setpoint = executor.sample(now_ns + TICK_NS)
            if setpoint is not None:
                path.append(setpoint.positions)
            tick += 1
    return np.array(path)


_WILD = st.lists(st.floats(-3.0, 3.0), min_size=8, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MERGES),
    st.lists(st.tuples(_WILD, st.integers(0, 12)), min_size=2, max_size=5),
)
def test_no_chunks_lead_beyond_velocity_or_acceleration(merge, chunks):
    path = _drive(ChunkExecutor(CONTRACT, merge=merge), chunks)
    limits = motion_limits(CONTRACT)
    velocity = np.diff(path, axis=0) * CONTRACT.control_rate_hz
    acceleration = np.diff(velocity, axis=0) * CONTRACT.control_rate_hz
    assert (np.abs(velocity) <= limits.velocity + 1e-6).all()
    assert (np.abs(acceleration) <= limits.acceleration + 1e-6).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(_WILD, st.integers(0, 12)), min_size=2, max_size=4))
def test_the_guard_has_nothing_to_cut(chunks):
    path = _drive(ChunkExecutor(CONTRACT), chunks)
    guard = CommandLimiter(CONTRACT)
    guard.reset(path[0])
    for setpoint in path:
        assert guard.limit(setpoint, dt_s=1 / CONTRACT.control_rate_hz).limited == ()


def test_joints_and_gripper_stop_at_their_ends_without_a_jerk():
    executor = ChunkExecutor(TABLETOP)
    executor.reset(np.array([*[0.0] * (A - 1), 0.02]), now_ns=T0)
    executor.submit(chunk([5.0] * 8), now_ns=T0)
    path = np.array([sample(executor, 33.3 * k).positions for k in range(1, 60)])
    limits = motion_limits(TABLETOP)
    assert (path <= limits.upper + 1e-9).all()
    np.testing.assert_allclose(path[-1], limits.upper, atol=1e-3)
    slowing = np.diff(path[:, :-1], n=2, axis=0) * TABLETOP.control_rate_hz**2
    assert (np.abs(slowing) <= limits.acceleration[:-1]).all()


def test_a_late_tick_moves_no_further_than_one_period_allows():
    executor = started([1.0] * 8)
    before = sample(executor, 33)
    after = sample(executor, 400)
    moved = np.abs(after.positions - before.positions)
    assert (moved <= motion_limits(CONTRACT).velocity / CONTRACT.control_rate_hz).all()


def test_the_same_time_gives_the_same_setpoint():
    executor = started([0.1, 0.2])
    first = sample(executor, 40)
    assert sample(executor, 40) is first
    assert sample(executor, 20) is first


# -- when to observe, and what is planned ---------------------------------------------------------


def test_the_next_observation_is_due_after_the_executed_steps():
    executor = started([0.1] * 8, execute_steps=3)
    assert executor.due_ns == pytest.approx(T0 + 300 * MS, abs=3 * MS)


def test_it_is_due_earlier_when_the_chunk_would_come_too_late():
    executor = started([0.0] * 8, execute_steps=8)
    assert executor.due_ns == pytest.approx(T0 + 700 * MS, abs=3 * MS)
    executor.submit(chunk([0.0] * 8, stamp_ns=T0 + 200 * MS), now_ns=T0 + 450 * MS)
    assert executor.delay_s == pytest.approx(0.25)
    assert executor.due_ns == pytest.approx(T0 + 650 * MS, abs=3 * MS)


def test_the_longest_of_the_last_delays_counts():
    executor = ChunkExecutor(CONTRACT)
    executor.reset(np.zeros(A), now_ns=T0)
    assert executor.delay_s == 0
    for index, delay_ms in enumerate([90, 40, *[50] * 7]):
        stamp_ns = T0 + index * 200 * MS
        executor.submit(chunk([0.0] * 8, stamp_ns=stamp_ns), now_ns=stamp_ns + delay_ms * MS)
        assert executor.delay_s == pytest.approx(0.09 if index < 8 else 0.05)


@pytest.mark.parametrize(("merge", "delay_ms"), [("auto", 200), ("pause", 200), ("pause", 20)])
def test_a_robot_that_waits_moves_for_twice_the_delay_and_observes_at_rest(merge, delay_ms):
    executor = ChunkExecutor(CONTRACT, merge=merge)
    executor.reset(np.zeros(A), now_ns=T0)
    begin_ms = delay_ms
    for index in range(3):
        stamp_ns = T0 + (begin_ms - delay_ms) * MS
        rows = 0.1 * index + np.linspace(0.02, 0.16, 8)
        executor.submit(chunk(rows, stamp_ns=stamp_ns), now_ns=T0 + begin_ms * MS)
        steps = max(2, round(2 * delay_ms / 100))
        end_ms = begin_ms + 100 * steps
        assert executor.due_ns == T0 + end_ms * MS
        way = ride(executor, start_ms=begin_ms + 5, end_ms=end_ms + delay_ms)
        np.testing.assert_allclose(way[begin_ms + 100].positions, rows[0], atol=1e-6)
        np.testing.assert_allclose(way[end_ms].positions, rows[steps - 1], atol=1e-6)
        np.testing.assert_array_equal(way[end_ms + delay_ms].velocities, 0.0)
        begin_ms = end_ms + delay_ms


def test_auto_moves_on_while_most_inferences_are_fast():
    executor = started([0.0] * 8, merge="auto")
    for index, delay_ms in ((1, 140), (2, 130), (3, 400)):
        stamp_ns = T0 + index * 200 * MS
        executor.submit(chunk([0.0] * 8, stamp_ns=stamp_ns), now_ns=stamp_ns + delay_ms * MS)
        assert executor.due_ns < stamp_ns + 210 * MS
        assert executor.steps_left(stamp_ns) == 8


@pytest.mark.parametrize(("delay_ms", "told"), [(60, False), (90, False), (110, True)])
def test_auto_tells_the_policy_only_where_the_delay_matters(delay_ms: int, told: bool):
    executor = ChunkExecutor(CONTRACT, merge="auto", conditionings=("inpaint",))
    executor.reset(np.zeros(A), now_ns=T0)
    for index in range(4):
        stamp_ns = T0 + index * 200 * MS
        # One slow inference among four does not matter.
        late_ms = 300 if index == 2 else delay_ms
        executor.submit(chunk([0.0] * 8, stamp_ns=stamp_ns), now_ns=stamp_ns + late_ms * MS)
    assert (executor.prefix(stamp_ns + 200 * MS) is not None) == told


@pytest.mark.parametrize(("rows", "waits"), [(8, True), (50, False)])
def test_what_is_a_long_delay_depends_on_the_length_of_a_chunk(rows: int, waits: bool):
    executor = ChunkExecutor(CONTRACT, merge="auto")
    executor.reset(np.zeros(A), now_ns=T0)
    executor.submit(chunk([0.0] * rows), now_ns=T0 + 200 * MS)
    # At the end of what is carried out, where it waits.
    assert (executor.steps_left(T0 + 200 * MS) < rows - 2) == waits


@pytest.mark.parametrize("merge", ["switch", "ensemble"])
def test_strategies_without_conditioning_tell_the_policy_nothing(merge):
    assert started([0.1] * 8, merge=merge).prefix(T0 + 200 * MS) is None


def delayed(rows, *, delay_ms: int) -> ChunkExecutor:
    """An executor that plays rows from T0 on, which came so much later."""
    executor = started([0.0] * 8, merge="rtc")
    executor.submit(chunk(rows, chunk_id=1), now_ns=T0 + delay_ms * MS)
    return executor


def test_the_prefix_is_the_plan_at_the_times_of_the_next_chunks_rows():
    rows = [0.05, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.32]
    executor = delayed(rows, delay_ms=200)
    prefix = executor.prefix(T0 + 300 * MS)
    assert prefix is not None
    assert (prefix.names, prefix.conditioning, prefix.frozen) == (NAMES, "inpaint", 2)
    np.testing.assert_allclose(prefix.positions, np.repeat(np.array(rows)[3:7, None], A, 1))
    way = ride(executor, start_ms=205, end_ms=800)
    between = executor.prefix(T0 + 315 * MS)
    assert between is not None
    np.testing.assert_allclose(between.positions[1], way[515].positions)


@pytest.mark.parametrize(("delay_ms", "frozen"), [(60, 1), (140, 1), (160, 2), (210, 2), (260, 3)])
def test_rows_that_are_executed_during_the_inference_are_frozen(delay_ms: int, frozen: int):
    prefix = delayed([0.05] * 8, delay_ms=delay_ms).prefix(T0 + 200 * MS)
    assert prefix is not None
    assert prefix.frozen == frozen
    assert len(prefix.positions) == min(6, 2 * frozen)


def test_at_the_end_of_the_plan_fewer_rows_are_told():
    executor = delayed([0.05] * 8, delay_ms=300)
    prefix = executor.prefix(T0 + 650 * MS)
    assert prefix is not None
    assert (prefix.frozen, len(prefix.positions)) == (1, 1)
    assert executor.prefix(T0 + 750 * MS) is None
    assert executor.prefix(T0 + 900 * MS) is None


def test_without_a_delay_there_is_nothing_to_continue():
    assert delayed([0.05] * 8, delay_ms=30).prefix(T0 + 200 * MS) is None


def test_frozen_rows_are_carried_out_as_planned():
    executor = started([0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2, 0.2], merge="rtc")
    executor.submit(
        chunk([0.1, 0.15, 0.2] + [0.2] * 5, stamp_ns=T0 + 100 * MS), now_ns=T0 + 300 * MS
    )
    assert executor.prefix(T0 + 300 * MS) is not None
    # What the policy made of the first two rows does not matter: they are executed meanwhile.
    executor.submit(chunk([9.0, 9.0, 0.2, 0.25, 0.3], stamp_ns=T0 + 300 * MS), now_ns=T0 + 500 * MS)
    way = ride(executor, start_ms=305, end_ms=700)
    np.testing.assert_allclose(way[600].positions, 0.2, atol=1e-6)
    np.testing.assert_allclose(way[700].positions, 0.25, atol=1e-6)


def test_a_prefix_of_another_observation_is_not_used():
    executor = started([0.05] * 8, merge="rtc")
    executor.submit(chunk([0.05] * 8, stamp_ns=T0 + 100 * MS), now_ns=T0 + 300 * MS)
    executor.prefix(T0 + 300 * MS)
    executor.submit(chunk([0.1] * 8, stamp_ns=T0 + 310 * MS), now_ns=T0 + 400 * MS)
    way = ride(executor, start_ms=405, end_ms=610)
    np.testing.assert_allclose(way[610].positions, 0.1, atol=1e-6)


# -- the rest --------------------------------------------------------------------------------------


def test_half_speed_takes_twice_the_time():
    executor = started([0.1, 0.2], speed_scale=0.5)
    way = ride(executor, start_ms=5, end_ms=400)
    np.testing.assert_allclose(way[200].positions, 0.1)
    np.testing.assert_allclose(way[400].positions, 0.2)
    assert executor.steps_left(T0 + 300 * MS) == 1


def test_columns_are_mapped_by_name():
    order = [3, 0, 6, 1, 5, 2, 4]
    values = np.arange(A, dtype=np.float64) / 50
    executor = ChunkExecutor(CONTRACT)
    executor.reset(np.zeros(A), now_ns=T0)
    names = tuple(NAMES[i] for i in order)
    executor.submit(chunk(values[order][None].repeat(3, axis=0), names=names), now_ns=T0)
    np.testing.assert_allclose(ride(executor, start_ms=5, end_ms=300)[300].positions, values)


def test_other_names_are_refused():
    executor = ChunkExecutor(CONTRACT)
    with pytest.raises(PolicyError, match="columns"):
        executor.submit(chunk([0.0], names=("a", "b", "c", "d", "e", "f", "g")), now_ns=T0)


@pytest.mark.parametrize("changes", [{"rows": np.zeros((0, A))}, {"rows": [0.0], "dt_s": 0.0}])
def test_a_chunk_without_rows_or_time_is_refused(changes: dict):
    with pytest.raises(PolicyError, match="nothing of it can be executed"):
        ChunkExecutor(CONTRACT).submit(chunk(**changes), now_ns=T0)


def test_reset_forgets_the_plan():
    executor = started([0.5, 0.5])
    executor.reset(np.zeros(A), now_ns=T0)
    assert executor.sample(T0 + MS) is None
    assert executor.prefix(T0) is None


def test_steps_left_counts_down():
    executor = started([0.1, 0.2, 0.3])
    left = [executor.steps_left(T0 + ms * MS) for ms in (0, 99, 100, 250, 300, 999)]
    assert left == [3, 3, 2, 1, 0, 0]
