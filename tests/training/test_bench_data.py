"""The measurement of the data path runs and measures what it says."""

from __future__ import annotations

import time

import numpy as np

from tests.training.test_finetune import dataset_for, small_policy
from training.bags.episodes import episode_steps
from training.bags.reader import open_bag
from training.bench.data import bench_contract, stall_share, write_recording


def test_the_recording_is_what_the_figures_say(tmp_path):
    contract = bench_contract()
    with open_bag(write_recording(tmp_path / "bag", contract=contract, seconds=0.5)) as bag:
        steps = episode_steps(bag, contract=contract, rate_hz=30.0)
    assert 13 <= len(steps) <= 16
    assert steps.images["camera0"].shape[1:] == (480, 640, 3)
    assert steps.image_present.all()


def test_a_slow_loader_stalls_and_a_fast_one_does_not(monkeypatch):
    dataset = dataset_for(small_policy())
    batch = dataset.batch

    def slow(*args: object, **options: object):
        time.sleep(0.05)
        return batch(*args, **options)

    monkeypatch.setattr(dataset, "batch", slow)
    assert stall_share(dataset, step_s=0.005, steps=8) > 0.6
    assert np.isfinite(stall_share(dataset, step_s=0.2, steps=3))
