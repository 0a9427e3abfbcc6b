"""What a run needs is known before it starts, and a run that cannot fit says what would."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fastvla_core.errors import DatasetError
from fastvla_core.models.lora import LoraConfig
from tests.training.test_finetune import CONFIG, trainer
from training import finetune
from training.memory import MemoryEstimate, require_memory
from training.recipe import TrainConfig

LARGE = MemoryEstimate(
    weights=10**9,
    gradients=10**9,
    optimizer=2 * 10**9,
    averages=10**9,
    activations=8 * 10**9,
    part=64,
)
RUN = TrainConfig(steps=1, batch_size=64)


def estimate(out: Path, config: TrainConfig = CONFIG) -> MemoryEstimate:
    return trainer(out, config)[0].memory


def test_a_batch_in_parts_keeps_less(tmp_path: Path):
    whole = estimate(tmp_path / "whole")
    parts = estimate(tmp_path / "parts", dataclasses.replace(CONFIG, accumulate=4))
    assert (whole.part, parts.part) == (4, 1)
    assert 0.2 * whole.activations < parts.activations < 0.5 * whole.activations
    assert parts.weights == whole.weights


def test_what_is_counted_follows_the_configuration(tmp_path: Path):
    full = estimate(tmp_path / "full")
    eight = estimate(tmp_path / "eight", dataclasses.replace(CONFIG, optimizer="adamw_8bit"))
    lora = LoraConfig(rank=2, modules=("expert.layers.*",), quantization="nf4")
    adapted = estimate(tmp_path / "adapted", dataclasses.replace(CONFIG, lora=lora))
    recomputed = estimate(
        tmp_path / "recomputed", dataclasses.replace(CONFIG, activations="recompute")
    )
    assert full.gradients == full.weights
    assert full.optimizer == 2 * full.gradients
    assert eight.optimizer == full.optimizer / 4
    assert adapted.gradients < 0.1 * full.gradients
    assert adapted.weights < 0.8 * full.weights
    assert recomputed.activations < 0.7 * full.activations


def test_a_run_that_cannot_fit_is_refused_before_it_starts(tmp_path: Path, monkeypatch):
    run, _ = trainer(tmp_path)
    monkeypatch.setattr(finetune, "available_memory", lambda device: 10**6)
    with pytest.raises(DatasetError, match="training needs about"):
        run.run()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("available_gb", "mend"),
    [
        (14.0, "set `optimizer: adamw_8bit` in"),
        (8.0, "`accumulate: 4`"),
        (4.2, "`accumulate: 64`"),
        (1.0, "adapters on packed weights"),
    ],
)
def test_the_mend_is_the_least_that_fits(available_gb: float, mend: str):
    with pytest.raises(DatasetError) as caught:
        require_memory(LARGE, round(available_gb * 1e9), config=RUN)
    assert mend in caught.value.mend


def test_where_weights_are_in_parts_the_mend_is_none_that_parts_rule_out():
    config = dataclasses.replace(RUN, parallel="fsdp")
    with pytest.raises(DatasetError) as caught:
        require_memory(LARGE, 10**10, config=config)
    assert "set `accumulate: 4` in" in caught.value.mend
    with pytest.raises(DatasetError) as caught:
        require_memory(LARGE, 10**9, config=RUN)
    assert "`parallel: fsdp`" in caught.value.mend


def test_what_fits_is_let_through():
    require_memory(LARGE, LARGE.total, config=RUN)


def test_what_a_run_needs_is_measured_once_however_often_it_is_asked(tmp_path: Path, monkeypatch):
    """The passes that measure it are the run's whole start, where a step is slow."""
    measured: list[int] = []
    measure = finetune.estimate_memory

    def counted(*args: Any, **options: Any) -> MemoryEstimate:
        measured.append(options["part"])
        return measure(*args, **options)

    monkeypatch.setattr(finetune, "estimate_memory", counted)
    run, _ = trainer(tmp_path, dataclasses.replace(CONFIG, steps=1))
    said = run.memory.in_words()
    run.run()
    assert run.memory.in_words() == said
    assert measured == [4]
