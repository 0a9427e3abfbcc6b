"""Which steps a run draws from: all alike, some more than others, or only some."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.errors import DatasetError
from tests.training.test_finetune import dataset_for, small_policy
from training.bench.training_speed import random_cache
from training.cache import CacheEntry
from training.cache_shard import CachedEpisode
from training.recipe import Corrections


def entry(source: Path, *, frames: int) -> CacheEntry:
    episode = CachedEpisode(instruction="pick up the red cube", frames=frames)
    return CacheEntry(source=str(source), size=1, mtime_ns=1, sha256="", episodes=(episode,))


def test_the_rows_of_a_folder_are_those_of_its_recordings(tmp_path: Path):
    cache = random_cache(small_policy(), frames=9)
    entries = (
        entry(tmp_path / "first" / "bags" / "a", frames=4),
        entry(tmp_path / "bags" / "a", frames=2),
        entry(tmp_path / "bags" / "b", frames=3),
    )
    manifest = dataclasses.replace(cache.manifest, entries=entries)
    cache = dataclasses.replace(cache, manifest=manifest)
    assert cache.rows_from(tmp_path / "bags").tolist() == [False] * 4 + [True] * 5
    assert cache.rows_from(tmp_path / "first").tolist() == [True] * 4 + [False] * 5


def test_favoured_steps_are_the_share_that_was_asked_for_and_each_is_drawn_alike():
    dataset = dataset_for(small_policy())
    plain = dataset.draw(np.random.default_rng(0), 4000)
    assert np.bincount(plain, minlength=32).min() > 60
    before = dataset.digest
    few = np.arange(32) < 4
    dataset.favour(few, share=0.5)
    counts = np.bincount(dataset.draw(np.random.default_rng(0), 4000), minlength=32)
    assert 0.46 < counts[:4].sum() / 4000 < 0.54
    assert counts[:4].min() > 400
    assert counts[4:].min() > 30
    # A run that draws otherwise does not go on from a checkpoint of this one.
    assert dataset.digest != before
    assert dataset.restricted(few).digest == before


def test_a_share_of_nothing_or_of_everything_is_refused():
    dataset = dataset_for(small_policy())
    for rows in (np.zeros(32, bool), np.ones(32, bool)):
        with pytest.raises(DatasetError, match=r"share of 0\.4 is to be drawn from"):
            dataset.favour(rows, share=0.4)
    with pytest.raises(DatasetError, match=r"corrections\.share is 1"):
        Corrections(episodes={"reach": 1}, seed=1, steps=1, share=1.0)
