"""The strategies: what of a new chunk is carried out, and which of them a policy can do."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.errors import PolicyError
from fastvla_core.runtime.merging import (
    CHUNK_MERGES,
    MergeStrategy,
    TimedTargets,
    check_merge,
    merge_strategy,
)
from fastvla_core.types import ChunkPrefix

STEP_NS = 100_000_000


def targets(rows, *, start_ns: int = 0) -> TimedTargets:
    times = start_ns + np.arange(1, len(rows) + 1) * STEP_NS
    return TimedTargets(times, np.asarray(rows, np.float64)[:, None])


def prefix(rows, *, frozen: int) -> ChunkPrefix:
    return ChunkPrefix(
        names=("a",),
        positions=np.asarray(rows, np.float64)[:, None],
        frozen=frozen,
        conditioning="inpaint",
    )


def merged(strategy: MergeStrategy, *chunks: TimedTargets) -> list[float]:
    return [strategy.merge(chunk, None) for chunk in chunks][-1][:, 0].tolist()


def test_a_switch_over_takes_the_chunk_as_it_is():
    chunks = targets([1, 2, 3]), targets([5, 6, 7], start_ns=STEP_NS)
    assert merged(merge_strategy("switch"), *chunks) == [5, 6, 7]


def test_an_ensemble_weighs_the_oldest_most_by_exponents_of_a_hundredth():
    chunks = [targets([0.0] * 4), targets([1.0] * 4, start_ns=STEP_NS)]
    chunks.append(targets([2.0] * 4, start_ns=2 * STEP_NS))
    w = np.exp(-0.01 * np.arange(3))
    three = (w[1] * 1 + w[2] * 2) / w.sum()
    # The oldest chunk ends after the second row: then the next one has become the oldest.
    two = (w[0] * 1 + w[1] * 2) / w[:2].sum()
    found = merged(merge_strategy("ensemble"), *chunks)
    np.testing.assert_allclose(found, [three, three, two, 2.0])


def test_an_ensemble_reads_chunks_of_another_phase_between_their_rows():
    chunks = targets([0.0, 1.0, 2.0]), targets([5.0, 5.0, 5.0], start_ns=STEP_NS // 2)
    w = np.exp(-0.01 * np.arange(2))
    expected = [(w[0] * said + w[1] * 5) / w.sum() for said in (0.5, 1.5)]
    np.testing.assert_allclose(merged(merge_strategy("ensemble"), *chunks), [*expected, 5.0])


def test_an_ensemble_forgets_at_a_reset():
    strategy = merge_strategy("ensemble")
    strategy.merge(targets([0.0] * 4), None)
    strategy.reset()
    assert merged(strategy, targets([1.0] * 4)) == [1.0] * 4


@pytest.mark.parametrize("name", ["rtc", "rtc_trained"])
def test_real_time_chunking_keeps_the_frozen_rows_exactly(name):
    strategy = merge_strategy(name)
    chunk = targets([1.1, 2.1, 3.1, 4.1])
    told = prefix([1.0, 2.0, 3.0], frozen=2)
    assert strategy.merge(chunk, told)[:, 0].tolist() == [1.0, 2.0, 3.1, 4.1]
    assert strategy.merge(chunk, None)[:, 0].tolist() == [1.1, 2.1, 3.1, 4.1]
    # More may be frozen than the next chunk has rows.
    assert strategy.merge(targets([9.0]), told)[:, 0].tolist() == [1.0]


@pytest.mark.parametrize("name", CHUNK_MERGES)
def test_a_policy_that_can_be_told_everything_can_be_merged_in_every_way(name):
    check_merge(name, conditionings=("inpaint", "trained"))


@pytest.mark.parametrize("name", ["auto", "pause", "switch", "ensemble"])
def test_any_policy_can_be_merged_in_the_simple_ways(name):
    check_merge(name, conditionings=())


@pytest.mark.parametrize(
    ("name", "conditionings", "mend"),
    [("rtc", (), "'switch'"), ("rtc_trained", ("inpaint",), "max_prefix_steps")],
)
def test_what_the_policy_cannot_be_told_is_refused_with_the_mend(name, conditionings, mend):
    with pytest.raises(PolicyError, match=f"cannot be merged by '{name}'") as caught:
        check_merge(name, conditionings=conditionings)
    assert mend in caught.value.mend


def test_auto_tells_the_policy_where_it_can():
    assert merge_strategy("auto").conditioning is None
    guided = merge_strategy("auto", conditionings=("inpaint",))
    assert guided.conditioning == "inpaint"
    assert guided.patience_share == merge_strategy("auto").patience_share
    assert guided.told_from_steps > merge_strategy("rtc").told_from_steps


def test_only_auto_and_pause_let_the_robot_wait():
    patience = {name: merge_strategy(name).patience_share for name in CHUNK_MERGES}
    assert patience.pop("pause") == 0
    assert 1 / 8 < patience.pop("auto") < 2 / 8
    assert set(patience.values()) == {float("inf")}
