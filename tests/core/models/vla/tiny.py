"""Composed policies small enough for every test: real backbones with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# Not for every Python that the rest runs on.
pytest.importorskip("transformers")

from fastvla_core.models.backbones.vlm.interface import VLMBackbone
from fastvla_core.models.policies.vla.config import VLAConfig
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation

from ..backbones.vlm.tiny import write_folder
from ..heads.contexts import make_fast_tokenizer
from ..tiny import NAMES, TEXTS, tiny_statistics

SMALL: dict[str, Any] = {"depth": 2, "width": 32, "mlp_width": 48, "heads": 4}
Backbones = Callable[[str], Path]


def write_backbone(folder: Path, family: str) -> Path:
    """A folder that Transformers loads, made once."""
    done = folder / family
    if not done.is_dir():
        bare = write_folder(folder / f"bare_{family}", family)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            backbone = VLMBackbone.from_config(bare)
            # Gemma 3's projector starts with zeros: nothing of an image would get through.
            for parameter in backbone.parameters_of("projector"):
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
        backbone.save_pretrained(done)
    return done


def head(kind: str, *, folder: Path | None = None, **options: Any) -> dict[str, Any]:
    """A head's plain options; FAST's tokenizer is made below `folder`."""
    found: dict[str, Any] = {"type": kind, **SMALL}
    if options.get("attention") == "joint":
        found.pop("heads")
    if kind == "flow":
        found["inference_steps"] = 3
    if kind == "fast":
        assert folder is not None
        place = folder / "fast"
        if not place.is_dir():
            make_fast_tokenizer(place)
        found |= {"action_tokenizer": str(place), "max_tokens": 24}
    return {**found, **options}


def vla_config(backbone: Path, **others: Any) -> VLAConfig:
    fields: dict[str, Any] = {
        "cameras": ("front", "wrist"),
        "optional_cameras": ("wrist",),
        "image_resolution": (28, 28),
        "state_names": NAMES,
        "action_names": NAMES,
        "chunk_size": 4,
        "backbone": str(backbone),
        "head": head("flow"),
    }
    return VLAConfig(**{**fields, **others})


def vla_policy(backbone: Path, *, seed: int = 0, **others: Any) -> FastVLA:
    config = vla_config(backbone, **others)
    return FastVLA.from_config(config, statistics=tiny_statistics(config), seed=seed)


def batch(policy: FastVLA, *, seed: int = 0) -> dict[str, Any]:
    """Two rows for `loss`: other instructions, and the second without its wrist camera."""
    draws = torch.Generator().manual_seed(seed)
    config = policy.config
    return policy.training_batch(
        images={
            name: torch.randint(0, 256, (2, 20, 30, 3), generator=draws, dtype=torch.uint8)
            for name in config.cameras
        },
        image_mask=torch.tensor([[True, True], [True, False]]),
        state=torch.randn(2, len(config.state_names), generator=draws),
        actions=torch.randn(2, config.chunk_size, len(config.action_names), generator=draws),
        tasks=list(TEXTS),
    )


def loss(policy: FastVLA, given: dict[str, Any]) -> torch.Tensor:
    return policy.model.loss(given, generator=torch.Generator().manual_seed(0))["loss"]


def observation(index: int = 0, *, task: str = TEXTS[0], missing: str = "") -> Observation:
    random = np.random.default_rng(index)
    images = {n: random.integers(0, 256, (20, 30, 3), dtype=np.uint8) for n in ("front", "wrist")}
    images.pop(missing, None)
    return Observation(
        stamp_ns=1_000 + index,
        task=task,
        images=images,
        state=random.normal(size=len(NAMES)).astype(np.float32),
    )
