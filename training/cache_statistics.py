"""Exact statistics of states and actions over the training split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cache_shard import CachedEpisode, Shard

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def training_statistics(
    path: Path, episodes: Sequence[CachedEpisode], *, held_out: float
) -> dict[str, Any]:
    """Of `state` and `action` per column, over the episodes that training sees.

    The values of all steps fit into memory where their pictures do not (56 bytes a step), so that
    the quantiles are those of the data and no estimate.
    """
    keys = np.asarray([episode.split_key for episode in episodes])
    trained = [e for e, held in zip(episodes, held_mask(keys, share=held_out)) if not held]
    shards = [Shard(path / episode.file) for episode in trained]
    state = np.concatenate([shard.columns["state"] for shard in shards])
    label = np.concatenate([shard.columns["label"] for shard in shards])
    return {"state": summary(state), "action": summary(label)}


def held_mask(keys: NDArray[np.float64], *, share: float) -> NDArray[np.bool_]:
    """True for what is held out from training, bool [N]: keys below the share.

    What would hold everything out leaves the largest key to training.
    """
    held = keys < share
    return held & (keys < keys.max()) if len(keys) and held.all() else held


def summary(values: NDArray[np.float32]) -> dict[str, Any]:
    """Statistics of the columns of [N, D], as lists of D numbers and `count`."""
    exact = values.astype(np.float64)
    levels = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "count": len(values),
        "mean": exact.mean(0).tolist(),
        "std": exact.std(0).tolist(),
        "min": exact.min(0).tolist(),
        "max": exact.max(0).tolist(),
        **{name: level.tolist() for name, level in zip(QUANTILES, levels)},
    }
