"""A policy small enough for every test, and observations for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, TransformerSize
from fastvla_core.models.statistics import MeanStd, Statistics
from fastvla_core.models.tokenizer import train_tokenizer
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation

NAMES = ("joint1", "joint2", "gripper")
TEXTS = ("pick up the red cube", "stack the red cube on the blue cube")
SIZE = TransformerSize(width=32, depth=2, mlp_width=32)


def film_vision(**others: Any) -> dict[str, Any]:
    return {
        "type": "film_conv",
        "per_camera_weights": True,
        "channels": [8, 16],
        "condition_width": 16,
        "groups": 4,
        **others,
    }


def vit_vision() -> dict[str, Any]:
    return {"type": "vit", "patch": 8, "token_width": 32, "depth": 2, "heads": 2, "mlp_width": 32}


def tiny_config(**others: Any) -> FlowVLAConfig:
    fields: dict[str, Any] = {
        "cameras": ("front", "wrist"),
        "optional_cameras": ("wrist",),
        "image_resolution": (16, 24),
        "state_names": NAMES,
        "action_names": NAMES,
        "chunk_size": 4,
        "num_inference_steps": 3,
        "vocab_size": 300,
        "tokenizer_max_length": 12,
        "vision": film_vision(),
        "text": SIZE,
        "prefix": SIZE,
        "expert": SIZE,
        "attention": AttentionShape(heads=4, kv_heads=2, head_dim=8),
    }
    return FlowVLAConfig(**{**fields, **others})


def tiny_statistics(config: FlowVLAConfig) -> Statistics:
    generator = torch.Generator().manual_seed(5)

    def values(*shape: int) -> MeanStd:
        return MeanStd(
            torch.randn(shape, generator=generator),
            0.5 + torch.rand(shape, generator=generator),
        )

    return Statistics(
        state=values(len(config.state_names)),
        action=values(config.chunk_size, len(config.action_names)),
    )


def tiny_policy(*, seed: int = 0, **others: Any) -> FastVLA:
    config = tiny_config(**others)
    return FastVLA.from_config(
        config, statistics=tiny_statistics(config), tokenizer=train_tokenizer(TEXTS), seed=seed
    )


def observation(index: int = 0, *, task: str = TEXTS[0], missing: str = "") -> Observation:
    random = np.random.default_rng(index)
    images = {
        camera: random.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        for camera in ("front", "wrist")
    }
    images.pop(missing, None)
    return Observation(
        stamp_ns=1_000 + index,
        task=task,
        images=images,
        state=random.normal(size=len(NAMES)).astype(np.float32),
    )


def model_batch(config: FlowVLAConfig, *, rows: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = config.image_resolution
    cameras, length = len(config.cameras), config.tokenizer_max_length

    def random(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    lengths = random(2, length, rows, 1)
    return {
        "images": random(0, 256, rows, cameras, 3, height, width) / 127.5 - 1,
        "image_mask": torch.ones(rows, cameras, dtype=torch.bool),
        "tokens": random(1, 300, rows, length),
        "token_mask": torch.arange(length) < lengths,
        "state": torch.randn(rows, len(config.state_names), generator=generator),
        "action": torch.randn(
            rows, config.chunk_size, len(config.action_names), generator=generator
        ),
    }
