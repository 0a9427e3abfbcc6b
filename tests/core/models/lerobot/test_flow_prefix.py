"""Chunks of the flow policies that go on from what is planned already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastvla_core.errors import PolicyError
from fastvla_core.policy import FastVLA
from fastvla_core.types import ChunkPrefix

from .checkpoints import FLOW_POLICIES, change_json, copied


@pytest.mark.parametrize("policy", FLOW_POLICIES)
def test_a_chunk_comes_nearer_to_what_is_planned(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    change_json(folder / "config.json", num_steps=10, num_inference_steps=10)
    loaded = FastVLA.from_pretrained(folder)
    assert loaded.conditionings == ("inpaint",)
    observation = loaded.processor.random_observation(0)
    free = loaded.infer(observation)
    planned = free.positions + 0.3
    prefix = ChunkPrefix(names=free.names, positions=planned, frozen=3, conditioning="inpaint")
    guided = loaded.infer(observation, prefix=prefix)
    before, after = (np.abs(c.positions - planned)[:3].mean() for c in (free, guided))
    assert after < 0.5 * before
    again, other = loaded.infer_batch([observation, observation], prefixes=[prefix, None])
    assert np.allclose(again.positions, guided.positions, atol=1e-5)
    assert np.allclose(other.positions, free.positions, atol=1e-5)


def test_what_a_policy_cannot_continue_is_refused(tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied("pi0_fast", tmp_path))
    observation = loaded.processor.random_observation(0)
    prefix = ChunkPrefix(
        names=loaded.config.action_names,
        positions=np.zeros((2, 7)),
        frozen=1,
        conditioning="inpaint",
    )
    with pytest.raises(PolicyError, match="cannot continue a plan"):
        loaded.infer(observation, prefix=prefix)
