"""fp16: a scaled loss whose scale belongs to the state of a run; refused where it would crawl."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import DatasetError
from tests.training.test_finetune import CONFIG, KilledError, trainer
from training.finetune import Trainer
from training.optimization import autocast_dtype, require_precision
from training.trainer_state import newest_state

HALF = dataclasses.replace(CONFIG, precision="fp16", steps=4)


def test_a_killed_run_in_fp16_resumes_exactly_with_its_loss_scale(tmp_path: Path, monkeypatch):
    # So large that the first steps overflow: the scale then is no longer the first one.
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", scaled(torch.amp.GradScaler.__init__))
    run, straight = trainer(tmp_path / "straight", HALF)
    run.run()
    newest = newest_state(tmp_path / "straight" / "checkpoints")
    assert newest is not None
    scaler = json.loads((newest / "trainer.json").read_text())["scaler"]
    assert scaler["scale"] < 2.0**40
    step = Trainer._step

    def dying(self: Trainer, number: int, batch: object) -> float:
        if number == 3:
            raise KilledError
        return step(self, number, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(KilledError):
            trainer(tmp_path / "resumed", HALF)[0].run()
    again, resumed = trainer(tmp_path / "resumed", HALF)
    again.run()
    assert again._scaler.state_dict() == scaler
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def scaled(first):
    def begin(self, *args, **options):
        first(self, *args, init_scale=2.0**40, **options)

    return begin


def test_a_cpu_is_not_asked_for_fp16():
    cpu = torch.device("cpu")
    with pytest.raises(DatasetError, match="a CPU does such products in software"):
        require_precision("fp16", cpu)
    require_precision("fp32", cpu)
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("fp16", torch.device("cuda")) is torch.float16
