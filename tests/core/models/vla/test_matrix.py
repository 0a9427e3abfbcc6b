"""Every family of backbones, every head and both fusions: a selection of what can be combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError
from fastvla_core.models.registry import ACTION_HEADS
from fastvla_core.policy import FastVLA

from ..backbones.vlm.tiny import FAMILIES
from ..tiny import TEXTS
from .tiny import Backbones, batch, head, loss, observation, vla_policy

TOKENS: dict[str, Any] = {"type": "tokens"}
CROSS: dict[str, Any] = {"type": "cross_attention", "depth": 1, "heads": 4}
MATRIX = [
    ("qwen2_vl", "flow", "joint", TOKENS),
    ("qwen2_5_vl", "regression", "cross", TOKENS),
    ("qwen3_vl", "bins", "joint", TOKENS),
    ("paligemma", "fast", "joint", TOKENS),
    ("paligemma2", "flow", "cross", CROSS),
    ("internvl", "fast", "cross", TOKENS),
    ("llava", "regression", "joint", CROSS),
    ("llava_onevision", "bins", "cross", TOKENS),
    ("florence2", "bins", "cross", CROSS),
    ("florence2", "flow", "cross", TOKENS),
    ("smolvlm", "fast", "cross", CROSS),
    ("idefics3", "regression", "cross", TOKENS),
    ("gemma3", "flow", "joint", TOKENS),
]


def test_the_selection_holds_every_part_often_enough():
    assert {family for family, *_ in MATRIX} == set(FAMILIES)
    for column, parts in ((1, ACTION_HEADS.names()), (2, ("joint", "cross"))):
        for part in parts:
            assert len({row[0] for row in MATRIX if row[column] == part}) >= 2
    assert len({row[0] for row in MATRIX if row[3] is CROSS}) >= 2


@pytest.mark.parametrize("parts", MATRIX, ids=lambda row: "-".join([*row[:3], row[3]["type"]]))
def test_it_trains_acts_and_comes_back_from_its_files(
    parts: tuple[str, str, str, dict[str, Any]], backbones: Backbones, tmp_path: Path
):
    family, kind, attention, fusion = parts
    chosen = head(kind, folder=tmp_path, attention=attention)
    policy = vla_policy(backbones(family), head=chosen, fusion=fusion)
    given = batch(policy)
    first = loss(policy, given)
    first.backward()
    model = policy.model
    for part in (model.head, *([] if model.fusion is None else [model.fusion])):
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in part.parameters())
    for part in ("vision", "projector", "language"):
        grads = [p.grad for p in model.backbone.parameters_of(part) if p.grad is not None]
        assert any(bool(grad.any()) for grad in grads), part

    # What a missing camera holds must not matter.
    hidden = {**given, "images": given["images"].clone()}
    hidden["images"][1, 1] = 1.0
    torch.testing.assert_close(loss(policy, hidden), first)

    seen = [observation(0), observation(1, task=TEXTS[1], missing="wrist")]
    chunks = policy.infer_batch(seen)
    policy.save_pretrained(tmp_path / "policy")
    loaded = FastVLA.from_pretrained(tmp_path / "policy")
    assert loaded.config.to_dict().keys() == policy.config.to_dict().keys()
    for own, again in zip(chunks, loaded.infer_batch(seen), strict=True):
        np.testing.assert_array_equal(own.positions, again.positions)
    np.testing.assert_allclose(
        policy.infer(seen[1]).positions, chunks[1].positions, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["flow", "regression"])
def test_joint_attention_on_florence_2_is_refused_with_the_reason(kind: str, backbones: Backbones):
    with pytest.raises(CheckpointError, match="Florence2 does not rotate its keys") as caught:
        vla_policy(backbones("florence2"), head=head(kind, attention="joint"))
    assert '"cross"' in caught.value.mend
