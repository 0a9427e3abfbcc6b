"""What a checkpoint is: from its files, without reading its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import not_finite, tensor_shapes
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles
from fastvla_core.models.lerobot.stored import ADAPTER, ADAPTER_CONFIG, SINGLE, weight_files
from fastvla_core.models.loading import load_config, skipped_layers
from fastvla_core.models.token_table import token_table_of
from fastvla_core.models.weightless import weightless
from fastvla_core.quant import quantizable_layers

# Reading this much to look for values that are not finite takes no time that anybody would notice.
_CHECKED_BYTES = 256_000_000
_Shapes = dict[str, tuple[str, tuple[int, ...]]]


def describe(path_or_name: str, *, files: LocalFiles = NO_LOCAL_FILES) -> dict[str, Any]:
    """What a checkpoint is, without its weights in memory.

    Raises:
        CheckpointError: it is missing, damaged, of an unknown type, or a weight is not finite.
    """
    folder = find_checkpoint(path_or_name)
    family, config = load_config(folder, files=files)
    processor = family.load_processor(folder, config, files=files)
    paths = _weights(folder)
    shapes: _Shapes = {}
    for path in paths:
        shapes |= tensor_shapes(path)
    size = sum(path.stat().st_size for path in paths)
    if size <= _CHECKED_BYTES:
        _check_finite(paths)
    contract = config.robot_contract or {}
    return {
        "folder": str(folder),
        "type": config.to_dict()["type"],
        "robot": contract.get("name"),
        "contract hash": config.robot_contract_hash,
        **getattr(config, "parts", {}),
        **_features(config, processor),
        "relative to the state": list(config.relative_joints),
        "chunk": f"{config.chunk_size} steps of {config.action_dt_s:g} s, "
        f"{config.n_action_steps} executed per inference",
        **_steps(config),
        "weights": f"{size / 1e6:.2f} MB",
        "precision": precision_line(shapes),
        **_memory(family, config),
    }


def _weights(folder: Path) -> list[Path]:
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / SINGLE).is_file():
        return [folder / ADAPTER]
    return [*weight_files(folder), *sorted((folder / "backbone").glob("*.safetensors"))]


def _features(config: Any, processor: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "cameras": list(config.cameras),
        "may be missing": list(config.optional_cameras),
        "image size": ", ".join(f"{height} x {width}" for height, width in _image_sizes(config)),
        "state": list(config.state_names),
        "action": list(config.action_names),
    }
    if not isinstance(config, LeRobotConfig):
        return found
    cameras = config.binding.cameras
    modes = config.normalization_mapping
    return {
        **found,
        "cameras of the policy": [
            f"{name} = {cameras[name]}" if cameras.get(name, name) != name else name
            for name in config.features.camera_names
        ],
        "never there": [n for n in config.features.camera_names if n not in cameras],
        "statistics": [
            f"state {modes.get('STATE', 'IDENTITY')} ({len(config.state_names)})",
            f"action {modes.get('ACTION', 'IDENTITY')} ({config.action_dim})",
            *(f"images {m}" for m in [modes.get("VISUAL", "IDENTITY")] if m != "IDENTITY"),
        ],
        "tokenizer": _tokenizer(config, processor),
    }


def _image_sizes(config: Any) -> tuple[tuple[int, int], ...]:
    sizes = getattr(config, "image_sizes", (config.image_resolution,))
    return tuple(dict.fromkeys(sizes))


def _tokenizer(config: Any, processor: Any) -> str:
    if not processor.tokenizers:
        return "none: instructions are not read"
    vocabulary = max(t.vocab_size for t in processor.tokenizers.values())
    return (
        f"{', '.join(processor.tokenizers)}, {vocabulary} entries, prompts of at most "
        f"{config.raw.get('tokenizer_max_length')} tokens"
    )


def _steps(config: Any) -> dict[str, Any]:
    if steps := getattr(config, "denoising_steps", None):
        return {"denoising steps": steps, "observations per inference": 1 + config.past_steps}
    return {
        "flow steps": getattr(config, "flow_steps", getattr(config, "num_inference_steps", None))
    }


def _check_finite(paths: list[Path]) -> None:
    for path in paths:
        if broken := not_finite(path):
            raise CheckpointError(
                f"{path}: {len(broken)} tensors hold NaN or infinity, the first is '{broken[0]}'",
                mend="use an earlier checkpoint; training writes one of those that were still "
                "finite",
            )


def precision_line(tensors: _Shapes) -> str:
    """For example "int8 (24 layers), F32": the quantised layers first."""
    packed = {
        "NF4": sum(1 for name in tensors if ".quant_state." in name),
        "int8": sum(1 for name in tensors if name.endswith(".SCB")),
    }
    kinds = [f"{kind} ({count} layers)" for kind, count in packed.items() if count]
    floats = sorted({dtype for dtype, _ in tensors.values() if dtype.startswith(("F", "BF"))})
    return ", ".join(kinds + floats)


def _memory(family: Any, config: Any) -> dict[str, str]:
    with weightless():
        model = family.model(config)
    int8, nf4 = skipped_layers(model, "int8"), skipped_layers(model, "nf4")
    lines = memory_lines(model, int8_skip=int8, nf4_skip=nf4)
    if table := token_table_of(model):
        size = 2 * sum(p.numel() for p in model.get_submodule(table).parameters())
        lines["of it the token table"] = f"{size / 1e6:.1f} MB in bf16, which may stay on the host"
    return lines


def memory_lines(
    model: nn.Module, *, int8_skip: Iterable[str], nf4_skip: Iterable[str]
) -> dict[str, str]:
    """Parameters, and what they take in memory by the ways of storing the large layers.

    Args:
        int8_skip, nf4_skip: Patterns of the layers that 8 or 4 bits leave alone.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    eight = quantizable_layers(model, skip=int8_skip).values()
    in_eight = sum(layer.weight.numel() for layer in eight)
    in_four = sum(
        layer.weight.numel() for layer in quantizable_layers(model, skip=nf4_skip).values()
    )
    sizes = {
        "bf16": 2 * total,
        "int8": 2 * total - in_eight + 4 * sum(layer.out_features for layer in eight),
        "NF4": 2 * (total - in_four) + in_four // 2 + 4 * (in_four // 64),
    }
    return {
        "parameters": f"{total / 1e6:.2f} M",
        "memory of the weights": ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in sizes.items()),
    }
