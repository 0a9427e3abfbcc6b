"""Chunks of the flow policies that go on from what is planned already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("policy", FLOW_POLICIES)
def test_frozen_rows_weigh_most_and_rows_without_a_plan_nothing(tmp_path: Path, policy: str):
    """Per row: three frozen, three wished for, the rest free."""
    folder = copied(policy, tmp_path)
    change_json(folder / "config.json", num_steps=10, num_inference_steps=10)
    loaded = FastVLA.from_pretrained(folder)
    observation = loaded.processor.random_observation(0)
    free = loaded.infer(observation)
    planned = free.positions + 0.3
    prefix = ChunkPrefix(names=free.names, positions=planned[:6], frozen=3, conditioning="inpaint")
    guided = loaded.infer(observation, prefix=prefix)
    moved = np.abs(guided.positions - free.positions)
    frozen, wished, unplanned = (moved[rows].mean() for rows in np.split(np.arange(10), (3, 6)))
    assert frozen > wished > unplanned
    assert np.abs(guided.positions - planned)[:3].mean() < 0.5 * 0.3


@pytest.mark.parametrize("policy", FLOW_POLICIES)
def test_plans_are_met_in_bfloat16_too(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    change_json(folder / "config.json", num_steps=10, num_inference_steps=10)
    loaded = FastVLA.from_pretrained(folder, dtype=torch.bfloat16)
    observation = loaded.processor.random_observation(0)
    free = loaded.infer(observation)
    planned = free.positions + 0.3
    prefix = ChunkPrefix(names=free.names, positions=planned, frozen=3, conditioning="inpaint")
    guided = loaded.infer(observation, prefix=prefix)
    before, after = (np.abs(c.positions - planned)[:3].mean() for c in (free, guided))
    assert after < 0.5 * before
