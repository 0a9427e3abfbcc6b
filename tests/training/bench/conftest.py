"""SmolVLA in a few thousand weights, prepared as the bench prepares the true sizes."""

from __future__ import annotations

import dataclasses

import pytest

from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.siglip import SiglipSize
from fastvla_core.models.policies.smolvla.vlm import SmolVLMSize
from training.bench.contest import workloads
from training.bench.contest.workloads import Shape

TINY = SmolVLMSize(
    vision=SiglipSize(width=32, depth=1, heads=2, mlp_width=64, patch=16, grid=4),
    text=DecoderSize(
        width=64,
        depth=2,
        mlp_width=96,
        attention=AttentionShape(heads=4, kv_heads=2, head_dim=16),
        eps=1e-5,
    ),
    vocab_size=320,
    scale_factor=2,
)
SHAPE = Shape(views=2, side=64, words=6, chunk=5, steps=3)


@pytest.fixture
def tiny(monkeypatch):
    """Let "smolvla-small" be a tiny one."""
    monkeypatch.setattr(workloads, "small_size", lambda: (TINY, 2))
    monkeypatch.setattr(workloads, "_SMALL_SHAPE", SHAPE)
    return SHAPE


@pytest.fixture
def workload(tiny, tmp_path):
    return workloads.prepare(workloads.SMALL, tmp_path, inputs=4, device="cpu")


@pytest.fixture
def more_views(tiny):
    return dataclasses.replace(tiny, views=3)
