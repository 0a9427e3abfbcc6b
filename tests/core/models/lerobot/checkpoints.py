"""The tiny reference checkpoints, copied so that a test can damage them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvla_core.policy import FastVLA

DATA = Path(__file__).parents[3] / "parity" / "data"
FLOW_POLICIES = ("smolvla", "pi0", "pi05")
POLICIES = (*FLOW_POLICIES, "pi0_fast")
VISUOMOTOR_POLICIES = ("act", "diffusion", "diffusion_ddim")


def copied(policy: str, folder: Path) -> Path:
    """A checkpoint of its own, sizes beside it."""
    target = Path(shutil.copytree(DATA / policy / "checkpoint", folder / policy))
    sizes = DATA / policy / "architecture.json"
    if sizes.is_file():
        shutil.copy2(sizes, target)
    return target


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    data = json.loads(path.read_text())
    for key, value in values.items():
        data[key] = value
        if value is None:
            del data[key]
    path.write_text(json.dumps(data))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Rewrite the weights; `change` works in place."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)


def change_step(folder: Path, file: str, name: str, **config: Any) -> None:
    """Change options of a step of a processor file."""
    path = folder / f"{file}.json"
    data = json.loads(path.read_text())
    for step in data["steps"]:
        if step["registry_name"] == name:
            step["config"] = {**step["config"], **config}
    path.write_text(json.dumps(data))


def positions(policy: FastVLA, seed: int = 3) -> np.ndarray:
    """The targets for a random observation."""
    return policy.infer(policy.processor.random_observation(seed)).positions
