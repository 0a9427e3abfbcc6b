"""Checkpoints of openpi's PyTorch: safetensors, a few sizes, and norm_stats.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, tensor_shapes
from fastvla_core.models.lerobot.features import ACTION_KEY, STATE_KEY, camera_key
from fastvla_core.models.lerobot.stored import weight_files

NORM_STATS = "norm_stats.json"
# What openpi's Normalize adds to standard deviations and to the range between quantiles.
_EPS = 1e-6
_CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
_KEYS = {"state": STATE_KEY, "actions": ACTION_KEY}


def norm_stats_file(folder: Path) -> Path | None:
    """The one norm_stats.json of a checkpoint; openpi keeps it below assets/.

    Raises:
        CheckpointError: there are several.
    """
    found = sorted(folder.rglob(NORM_STATS))
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} has {len(found)} {NORM_STATS}: {', '.join(map(str, found))}",
            mend="leave the one of the robot that is served",
        )
    return found[0] if found else None


def read_norm_stats(path: Path) -> dict[str, dict[str, Tensor]]:
    """Statistics by LeRobot's feature and name, changed so that its formulas give openpi's values.

    Raises:
        CheckpointError: the file is damaged, or lacks state or actions.
    """
    data = read_json(path).get("norm_stats")
    statistics: dict[str, dict[str, Tensor]] = {}
    for own, key in _KEYS.items():
        values = data.get(own) if isinstance(data, Mapping) else None
        if not isinstance(values, Mapping):
            raise CheckpointError(
                f"{path}: the statistics of '{own}' are missing", mend="compute them with openpi"
            )
        tensors = {
            name: torch.tensor(numbers, dtype=torch.float64)
            for name, numbers in values.items()
            if isinstance(numbers, list)
        }
        for name in ("std", "q99"):
            if name in tensors:
                tensors[name] = tensors[name] + _EPS
        statistics[key] = {name: tensor.float() for name, tensor in tensors.items()}
    return statistics


def openpi_data(folder: Path, sizes: Mapping[str, Any]) -> dict[str, Any] | None:
    """A config.json in LeRobot's words; None where the folder is none of openpi's.

    Args:
        sizes: openpi's own config.json; may be empty.
    Raises:
        CheckpointError: a file is missing or damaged.
    """
    found = norm_stats_file(folder)
    if found is None:
        return None
    shapes = {
        name.removeprefix("model."): shape
        for path in weight_files(folder)
        for name, (_, shape) in tensor_shapes(path).items()
    }
    if "action_in_proj.weight" not in shapes:
        return None
    is_pi05 = "time_mlp_in.weight" in shapes and "state_proj.weight" not in shapes
    dim = shapes["action_in_proj.weight"][1]
    statistics = read_norm_stats(found)
    side = int(sizes.get("image_size", 224))
    mode = "QUANTILES" if is_pi05 else "MEAN_STD"
    dims = {key: len(values["mean"]) for key, values in statistics.items()}
    horizon = int(sizes.get("action_horizon", 50))
    return {
        "type": "pi05" if is_pi05 else "pi0",
        "n_obs_steps": 1,
        "input_features": {
            **{camera_key(name): {"type": "VISUAL", "shape": [3, side, side]} for name in _CAMERAS},
            STATE_KEY: {"type": "STATE", "shape": [dims[STATE_KEY]]},
        },
        "output_features": {ACTION_KEY: {"type": "ACTION", "shape": [dims[ACTION_KEY]]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "paligemma_variant": sizes.get("paligemma_variant", "gemma_2b"),
        "action_expert_variant": sizes.get("action_expert_variant", "gemma_300m"),
        "dtype": str(sizes.get("precision", "float32")),
        "chunk_size": horizon,
        "n_action_steps": horizon,
        "max_state_dim": dim,
        "max_action_dim": dim,
        "num_inference_steps": int(sizes.get("num_steps", 10)),
        "image_resolution": [side, side],
        "tokenizer_max_length": int(sizes.get("max_token_len", 200 if is_pi05 else 48)),
    }
