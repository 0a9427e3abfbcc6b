"""Adapters on packed weights, ours beside bitsandbytes': the same start, the same batches."""

from __future__ import annotations

import pytest

from tests.bitsandbytes_defects import need_right_scales
from training.bench.qlora import (
    OTHER_SEED,
    OURS,
    PEER,
    Learning,
    compare_curves,
    compare_learners,
    learning_lines,
)

pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.timeout(900)


def test_both_learn_the_same_from_the_same_batches(workload):
    need_right_scales()
    learned = compare_learners(
        workload, device="cpu", threads=1, batch=2, steps=5, seconds=3000.0, say=print
    )
    assert [one.contender for one in learned] == [OURS, PEER, OTHER_SEED]
    assert [one.why for one in learned] == ["", "", ""]
    ours, peer, other = learned
    assert all(len(one.losses) == 5 and one.samples_per_s > 0 for one in learned)
    # Adapters that start alike on weights that are packed alike.
    assert peer.losses[0] == pytest.approx(ours.losses[0], rel=1e-4)
    assert ours.losses[-1] != ours.losses[0]
    assert other.losses[0] != ours.losses[0]
    curves = compare_curves(learned)
    assert curves is not None
    assert curves.same
    text = "\n".join(learning_lines(learned, curves))
    assert f"times {PEER}" in text
    assert "the same within noise" in text


def test_curves_that_part_are_told_apart():
    def one(name: str, *losses: float) -> Learning:
        return Learning(contender=name, samples_per_s=1.0, losses=losses)

    curves = compare_curves([one(OURS, 1, 0.5), one(PEER, 1, 0.9), one(OTHER_SEED, 1.02, 0.52)])
    assert curves is not None
    assert not curves.same
    assert compare_curves([one(OURS, 1, 1), Learning(contender=PEER, why="not installed")]) is None


def test_who_has_no_numbers_says_why():
    text = "\n".join(learning_lines([Learning(contender=PEER, why="not installed")], None))
    assert "not measured: not installed" in text
