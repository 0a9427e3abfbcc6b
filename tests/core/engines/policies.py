"""A tiny policy of each kind that engines with fixed shapes serve, and observations for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fastvla_core.contract_binding import RobotBinding
from fastvla_core.engines.names import EngineChoice
from fastvla_core.models.loading import Quantization
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation

from ..models.tiny import tiny_policy

GOLDENS = Path(__file__).parents[2] / "parity/data"
KINDS = ("flow", "smolvla", "pi0", "pi05")
PROMPTS = ("go", "pick up the red cube", "put the small red cube into the bowl on the left side")


def policy_of(
    kind: str,
    folder: Path,
    *,
    engine: EngineChoice = "eager",
    quantization: Quantization | None = None,
    device: str = "cpu",
) -> FastVLA:
    """The policy on an engine; `folder` is for the files of one that no golden has."""
    if kind != "flow":
        return FastVLA.from_pretrained(
            GOLDENS / kind / "checkpoint",
            binding=RobotBinding(action_dt_s=0.1),
            engine=engine,
            quantization=quantization,
            device=device,
        )
    if not (folder / "config.json").is_file():
        tiny_policy(tokenizer_max_length=48, image_points=3).save_pretrained(folder)
    return FastVLA.from_pretrained(folder, engine=engine, quantization=quantization, device=device)


def observations(policy: FastVLA) -> list[Observation]:
    """Prompts of several lengths; the last one lacks a camera."""
    found = [
        dataclasses.replace(policy.processor.random_observation(seed), task=task)
        for seed, task in enumerate(PROMPTS)
    ]
    images = dict(found[-1].images)
    images.pop(policy.config.cameras[-1])
    return [*found, dataclasses.replace(found[-1], images=images)]


def furthest(policy: FastVLA, reference: FastVLA) -> float:
    """Largest difference between the chunks of two policies, over all of `observations`."""
    seen = observations(reference)
    pairs = [(policy.infer(o).positions, reference.infer(o).positions) for o in seen]
    return float(max(np.abs(a - b).max() for a, b in pairs))
