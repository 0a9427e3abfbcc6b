"""Checkpoints are judged by what they do; the best one is kept, also over a resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.policy import FastVLA
from tests.training.test_finetune import CONFIG, trainer
from training import closed_loop
from training.closed_loop import ClosedLoop, SuccessPoint
from training.evaluate import EvaluationConfig, evaluate
from training.recipe import ClosedLoopConfig

JUDGED = ClosedLoopConfig(every=2, tasks=("reach",), seeds=(9_000_000, 9_000_002))


def test_training_judges_its_checkpoints_in_the_simulator(tmp_path: Path):
    run, _ = trainer(tmp_path, dataclasses.replace(CONFIG, steps=2, closed_loop=JUDGED))
    run.run()
    (point,) = ClosedLoop(JUDGED, out=tmp_path).points()
    assert (point.step, point.episodes) == (2, 2)
    assert FastVLA.from_pretrained(tmp_path / "best").config.robot_contract is not None


def test_the_best_by_success_is_kept_over_a_resume(tmp_path: Path, monkeypatch):
    nano = evaluate(EvaluationConfig(policy="nano", task="reach", seeds=(9_000_000, 9_000_002)))
    rates = {"a": 1, "b": 2, "c": 0}

    def judged(config: EvaluationConfig):
        return dataclasses.replace(nano, successes=rates[Path(config.policy).name])

    monkeypatch.setattr(closed_loop, "evaluate", judged)
    for step, name in enumerate(rates, start=1):
        policy = tmp_path / name
        policy.mkdir()
        (policy / "config.json").write_text(name)
        # A new one each time, as after a kill.
        ClosedLoop(JUDGED, out=tmp_path).judge(policy, step=2 * step)
    assert (tmp_path / "best" / "config.json").read_text() == "b"
    loop = ClosedLoop(JUDGED, out=tmp_path)
    assert [p.rate for p in loop.points()] == [0.5, 1.0, 0.0]
    assert loop.points()[0] == SuccessPoint(step=2, successes=1, episodes=2)
    assert not loop.is_due(4)
    assert loop.is_due(8)


def test_a_history_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "success.csv").write_text("step,successes\n1,x\n")
    with pytest.raises(CheckpointError, match=r"success\.csv cannot be read"):
        ClosedLoop(JUDGED, out=tmp_path).points()


def test_evaluations_fall_on_checkpoints():
    with pytest.raises(DatasetError, match="between checkpoints"):
        dataclasses.replace(CONFIG, closed_loop=dataclasses.replace(JUDGED, every=3))
