"""The processor files beside the weights, in LeRobot's layout, statistics included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, read_tensors, write_json, write_tensors
from fastvla_core.models.policies.flow_vla.config import (
    ACTION_KEY,
    NORMALIZATION,
    STATE_KEY,
    FlowVLAConfig,
    RobotPolicyConfig,
)
from fastvla_core.models.policies.flow_vla.processor import FlowVLAProcessor, RobotProcessor
from fastvla_core.models.statistics import EPS, MeanStd, Statistics
from fastvla_core.models.tokenizer import load_tokenizer

_COPY_AGAIN = "copy or download the checkpoint again, completely"
_DEVICE = {
    "registry_name": "device_processor",
    "config": {"device": "cpu", "float_dtype": None},
}


def save_processor(folder: Path, processor: FlowVLAProcessor) -> None:
    """Write both JSON files, their state files and the tokenizer."""
    save_steps(folder, processor, tokenizing=(_tokenizing(processor.tokenizer.max_length),))
    processor.tokenizer.save(folder / "tokenizer")


def save_steps(
    folder: Path, processor: RobotProcessor, *, tokenizing: Sequence[dict[str, Any]] = ()
) -> None:
    """Write both JSON files and their state files.

    Args:
        tokenizing: Steps that read the instruction.
    """
    config, statistics = processor.config, processor.statistics
    tensors = {
        f"{key}.{name}": getattr(values, name)
        for key, values in ((STATE_KEY, statistics.state), (ACTION_KEY, statistics.action))
        for name in ("mean", "std")
    }
    features = config.features
    before = [*_preprocessor_steps(config, tokenizing), _step("normalizer_processor", features)]
    after = [
        _step("unnormalizer_processor", {ACTION_KEY: features[ACTION_KEY]}),
        {
            "registry_name": "absolute_actions_processor",
            "config": {"enabled": config.use_relative_actions},
        },
        _DEVICE,
    ]
    for name, steps in (("policy_preprocessor", before), ("policy_postprocessor", after)):
        for index, step in enumerate(steps):
            if "norm_map" in step["config"]:
                step["state_file"] = f"{name}_step_{index}_{step['registry_name']}.safetensors"
                write_tensors(folder / step["state_file"], tensors)
        write_json(folder / f"{name}.json", {"name": name, "steps": steps})


def load_processor(folder: Path, config: FlowVLAConfig) -> FlowVLAProcessor:
    """Read what `save_processor` wrote.

    Raises:
        CheckpointError: a file or a statistic is missing, or statistics are of another feature.
    """
    statistics = load_statistics(folder, config)
    before = folder / "policy_preprocessor.json"
    tokenizer_step = _find_step(before, "tokenizer_processor")
    name = _text(before, tokenizer_step.get("config"), "tokenizer_name")
    tokenizer = load_tokenizer(folder / name, max_length=config.tokenizer_max_length)
    return FlowVLAProcessor(config, statistics=statistics, tokenizer=tokenizer)


def load_statistics(folder: Path, config: RobotPolicyConfig) -> Statistics:
    """The statistics that `save_steps` wrote.

    Raises:
        CheckpointError: a file or a statistic is missing, or statistics are of another feature.
    """
    before = folder / "policy_preprocessor.json"
    after = folder / "policy_postprocessor.json"
    state = _statistic(before, "normalizer_processor", STATE_KEY, (len(config.state_names),))
    actions = (config.chunk_size, len(config.action_names))
    action = _statistic(after, "unnormalizer_processor", ACTION_KEY, actions)
    return Statistics(state=state, action=action)


def _tokenizing(max_length: int) -> dict[str, Any]:
    return {
        "registry_name": "tokenizer_processor",
        "config": {
            "max_length": max_length,
            "task_key": "task",
            "padding_side": "right",
            "padding": "max_length",
            "truncation": True,
            "tokenizer_name": "tokenizer",
        },
    }


def _preprocessor_steps(
    config: RobotPolicyConfig, tokenizing: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        *tokenizing,
        _DEVICE,
        {
            "registry_name": "relative_actions_processor",
            "config": {
                "enabled": config.use_relative_actions,
                "exclude_joints": list(config.relative_exclude_joints),
                "action_names": list(config.action_names),
            },
        },
    ]


def _step(registry_name: str, features: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "registry_name": registry_name,
        "config": {"eps": EPS, "features": dict(features), "norm_map": NORMALIZATION},
    }


def _find_step(path: Path, registry_name: str) -> Mapping[str, Any]:
    steps = read_json(path).get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping) and step.get("registry_name") == registry_name:
            return step
    raise CheckpointError(f"{path}: there is no step '{registry_name}'", mend=_COPY_AGAIN)


def _text(path: Path, data: Any, key: str) -> str:
    value = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(value, str) or not value:
        raise CheckpointError(f"{path}: a step has no '{key}'", mend=_COPY_AGAIN)
    return value


def _statistic(path: Path, registry_name: str, key: str, shape: tuple[int, ...]) -> MeanStd:
    step = _find_step(path, registry_name)
    if not step.get("state_file"):
        raise CheckpointError(
            f"{path}: step '{registry_name}' names no state_file, so there are no statistics",
            mend="save the policy with its statistics",
        )
    source = path.parent / _text(path, step, "state_file")
    tensors = read_tensors(source)
    return MeanStd(
        _expect(tensors, f"{key}.mean", shape, source),
        _expect(tensors, f"{key}.std", shape, source),
    )


def _expect(tensors: Mapping[str, Tensor], key: str, shape: tuple[int, ...], path: Path) -> Tensor:
    if key not in tensors:
        raise CheckpointError(
            f"{path}: the statistic '{key}' is missing; it holds {', '.join(sorted(tensors))}",
            mend="the statistics are of other features: use the files that belong to config.json",
        )
    values = tensors[key].float()
    if values.shape not in (shape, shape[-1:]):
        raise CheckpointError(
            f"{path}: '{key}' is {tuple(values.shape)}, expected {shape}",
            mend="the statistics are of another robot: use the files that belong to config.json",
        )
    if not bool(values.isfinite().all()):
        raise CheckpointError(f"{path}: '{key}' holds NaN or infinity", mend=_COPY_AGAIN)
    return values
