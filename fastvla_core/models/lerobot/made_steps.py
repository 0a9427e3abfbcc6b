"""Processor files for checkpoints that have none: LeRobot's first ones, and openpi's.

They are LeRobot's own steps with the statistics filled in, so that saving writes what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.features import ACTION_KEY, STATE_KEY
from fastvla_core.models.lerobot.openpi import norm_stats_file, read_norm_stats
from fastvla_core.models.lerobot.step_files import POST, PRE, StepFile
from fastvla_core.models.lerobot.stored import read_stored

NORMALIZER = "normalizer_processor"
_UNNORMALIZER = "unnormalizer_processor"
_RELATIVE = "relative_actions_processor"
DEVICE: Mapping[str, Any] = {
    "registry_name": "device_processor",
    "config": {"device": "cpu", "float_dtype": None},
}
START: tuple[Mapping[str, Any], ...] = (
    {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
    {"registry_name": "to_batch_processor", "config": {}},
)
_OLD_BUFFER = re.compile(r"(?:un)?normalize_\w+\.buffer_(\w+)\.(\w+)")

Statistics = Mapping[str, Mapping[str, Tensor]]


def made_step_files(
    folder: Path, config: LeRobotConfig, entries: Sequence[Mapping[str, Any]]
) -> tuple[StepFile, StepFile]:
    """The two files, from the statistics that a checkpoint keeps elsewhere.

    Args:
        entries: The steps in front of the network; that of the name `NORMALIZER` is filled in.
    Raises:
        CheckpointError: there are no statistics.
    """
    found = norm_stats_file(folder)
    if found is not None:
        return step_files_of(folder, config, entries, read_norm_stats(found), eps=0.0)
    statistics = _old_statistics(folder, config)
    if not statistics:
        raise CheckpointError(
            f"{folder} has neither {PRE}.json nor norm_stats.json, and its weights hold no "
            "statistics",
            mend="copy the files with the statistics there: without them actions mean nothing",
        )
    return step_files_of(folder, config, entries, statistics, eps=1e-8)


def step_files_of(
    folder: Path,
    config: LeRobotConfig,
    entries: Sequence[Mapping[str, Any]],
    statistics: Statistics,
    *,
    eps: float,
) -> tuple[StepFile, StepFile]:
    """The two files for given statistics, by feature and name."""
    features = {**config.raw["input_features"], **config.raw["output_features"]}
    flat = {
        f"{feature}.{name}": tensor
        for feature, values in statistics.items()
        for name, tensor in values.items()
    }
    before = [dict(entry) for entry in entries]
    index = next(i for i, entry in enumerate(before) if entry["registry_name"] == NORMALIZER)
    norm_map = dict(config.normalization_mapping)
    states = tuple(
        f"{name}_step_{i}_{step}.safetensors"
        for name, i, step in ((PRE, index, NORMALIZER), (POST, 0, _UNNORMALIZER))
    )
    before[index] = {
        "registry_name": NORMALIZER,
        "config": {"eps": eps, "features": features, "norm_map": norm_map},
        "state_file": states[0],
    }
    outputs = dict(config.raw["output_features"])
    after: list[Mapping[str, Any]] = [
        {
            "registry_name": _UNNORMALIZER,
            "config": {"eps": eps, "features": outputs, "norm_map": norm_map},
            "state_file": states[1],
        }
    ]
    if any(entry["registry_name"] == _RELATIVE for entry in before):
        enabled = {"enabled": config.use_relative_actions}
        after.append({"registry_name": "absolute_actions_processor", "config": enabled})
    after.append(dict(DEVICE))
    return (
        StepFile(PRE, folder / f"{PRE}.json", {"name": PRE, "steps": before}, {states[0]: flat}),
        StepFile(POST, folder / f"{POST}.json", {"name": POST, "steps": after}, {states[1]: flat}),
    )


def usual_entries(
    config: LeRobotConfig,
    *,
    prompt: Sequence[str],
    tokenizer_name: str,
    padding: str = "max_length",
    after_tokens: Sequence[Mapping[str, Any]] = (),
    normalize_first: bool = False,
) -> list[Mapping[str, Any]]:
    """LeRobot's steps in front of a vision-language-action network.

    Args:
        prompt: Registry names of the steps that make the prompt.
        normalize_first: Whether the prompt needs the normalised state.
    """
    tokens: list[Mapping[str, Any]] = [
        *({"registry_name": name, "config": {}} for name in prompt),
        {
            "registry_name": "tokenizer_processor",
            "config": {
                "max_length": int(config.raw.get("tokenizer_max_length", 48)),
                "task_key": "task",
                "padding_side": "right",
                "padding": padding,
                "truncation": True,
                "tokenizer_name": tokenizer_name,
            },
        },
        *after_tokens,
        dict(DEVICE),
    ]
    normalizing: list[Mapping[str, Any]] = [
        {
            "registry_name": _RELATIVE,
            "config": {
                "enabled": config.use_relative_actions,
                "exclude_joints": list(config.relative_exclude_joints),
                "action_names": list(config.action_feature_names or ()) or None,
            },
        },
        {"registry_name": NORMALIZER},
    ]
    middle = [*normalizing, *tokens] if normalize_first else [*tokens, *normalizing]
    return [*START, *middle]


def _old_statistics(folder: Path, config: LeRobotConfig) -> dict[str, dict[str, Tensor]]:
    """What LeRobot's first checkpoints keep among the weights."""
    used = [STATE_KEY, ACTION_KEY]
    if config.normalization_mapping.get("VISUAL", "IDENTITY") != "IDENTITY":
        used += config.features.cameras
    names = {key.replace(".", "_"): key for key in used}
    statistics: dict[str, dict[str, Tensor]] = {}
    for stored, tensor in read_stored(folder).items():
        found = _OLD_BUFFER.fullmatch(stored)
        if found and found[1] in names and bool(torch.isfinite(tensor).all()):
            statistics.setdefault(names[found[1]], {})[found[2]] = tensor.float()
    return statistics
