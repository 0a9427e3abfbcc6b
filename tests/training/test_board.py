"""Curves for TensorBoard: a run that was killed and resumed shows every point once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_finetune import CONFIG, KilledError, dataset_for, small_policy
from training.finetune import Trainer


def run(out: Path) -> None:
    out.mkdir(exist_ok=True)
    policy = small_policy()
    dataset = dataset_for(policy)
    Trainer(policy, dataset=dataset, config=CONFIG, out=out, board=True).run()


def test_a_resumed_run_shows_every_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    save = Trainer._save_checkpoint

    def dying(self: Trainer, step: int) -> None:
        # The point of this step is on the board, and in no checkpoint.
        if step == 4:
            raise KilledError
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", dying)
        with pytest.raises(KilledError):
            run(tmp_path)
    run(tmp_path)
    files = list((tmp_path / "tensorboard").iterdir())
    events = [event for file in files for event in EventFileLoader(str(file)).Load()]
    shown = [(event.step, value.tag) for event in events for value in event.summary.value]
    losses = [step for step, tag in shown if tag == "loss/training"]
    assert losses == [2, 4, 6]
    rows = (tmp_path / "loss.csv").read_text().splitlines()[1:]
    assert losses == [int(row.split(",")[0]) for row in rows]
