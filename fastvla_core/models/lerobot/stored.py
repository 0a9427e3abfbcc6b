"""The tensors of a checkpoint under the names they are stored with: one file, shards, adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json
from fastvla_core.models.hub import find_checkpoint

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_ADAPTER_PREFIX = "base_model.model."


def read_stored(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint; they share memory with the files until they are changed.

    Adapters (LoRA of peft) are merged into the weights they belong to.

    Raises:
        CheckpointError: a file is missing or damaged, is a pickle, or an adapter does not fit.
    """
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / SINGLE).is_file():
        config = read_json(folder / ADAPTER_CONFIG)
        base = find_base(folder, config)
        return _merged(read_stored(base), folder, config)
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            part = load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is truncated or damaged: {error}",
                mend="copy or download the checkpoint again, completely",
            ) from error
        tensors.update(part)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        CheckpointError: there are none, or a shard that the index names is missing.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        table = read_json(folder / INDEX).get("weight_map")
        names = sorted(set(table.values())) if isinstance(table, dict) else []
        for name in names:
            if not (folder / str(name)).is_file():
                raise CheckpointError(
                    f"{folder / str(name)} is missing, and {folder / INDEX} names it",
                    mend="copy or download the checkpoint again, completely",
                )
        if names:
            return [folder / str(name) for name in names]
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is read; only "
            "safetensors are loaded",
            mend='convert it where you trust it: python -c "import torch; from safetensors.torch '
            f"import save_file; save_file(torch.load('{pickles[0]}', weights_only=True, "
            f"map_location='cpu'), '{SINGLE}')\"",
        )
    raise CheckpointError(
        f"{folder / SINGLE} is missing", mend="copy or download the checkpoint again, completely"
    )


def settings_folder(folder: Path) -> Path:
    """Where config and processors are: an adapter may leave them to the policy it belongs to.

    Raises:
        CheckpointError: that policy cannot be found.
    """
    if (folder / "config.json").is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return folder
    return find_base(folder, read_json(folder / ADAPTER_CONFIG))


def find_base(folder: Path, config: Mapping[str, Any]) -> Path:
    """The checkpoint that an adapter belongs to.

    Raises:
        CheckpointError: it is not named, or cannot be found.
    """
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: 'base_model_name_or_path' is missing",
            mend="name the policy that the adapter was trained on",
        )
    beside = folder / name
    return find_checkpoint(beside if beside.is_dir() else name)


def _merged(
    tensors: dict[str, Tensor], folder: Path, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    path = folder / ADAPTER_CONFIG
    for key, known in (("peft_type", ("LORA",)), ("use_dora", (None, False))):
        if config.get(key) not in known:
            raise CheckpointError(
                f"{path}: '{key}' is {config.get(key)!r}", mend="merge it with peft"
            )
    adapter = {
        name.removeprefix(_ADAPTER_PREFIX): tensor
        for name, tensor in load_file(folder / ADAPTER).items()
    }
    merged = dict(tensors)
    for name, tensor in adapter.items():
        module, mark, _ = name.partition(".lora_A.")
        if mark:
            up = adapter.get(name.replace(".lora_A.", ".lora_B."))
            change = _lora_change(tensor, up, module, config, folder)
            target = f"{module}.weight"
            weight = _target(merged, target, change.shape, folder)
            merged[target] = (weight.float() + change).to(weight.dtype)
        elif ".lora_B." not in name:
            # Modules that were trained whole.
            target = re.sub(r"\.modules_to_save(\.default)?\.", ".", name)
            merged[target] = tensor.to(_target(merged, target, tensor.shape, folder).dtype)
    return merged


def _target(tensors: Mapping[str, Tensor], name: str, shape: torch.Size, folder: Path) -> Tensor:
    if name not in tensors or tensors[name].shape != shape:
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        raise CheckpointError(
            f"{folder / ADAPTER}: '{name}' is {found} in the policy, {tuple(shape)} in the adapter",
            mend="use the policy that the adapter was trained on",
        )
    return tensors[name]


def _lora_change(
    down: Tensor, up: Tensor | None, module: str, config: Mapping[str, Any], folder: Path
) -> Tensor:
    if up is None:
        raise CheckpointError(
            f"{folder / ADAPTER}: '{module}.lora_B.weight' is missing",
            mend="copy or download the adapter again, completely",
        )
    rank = down.shape[0]
    alpha = float(config.get("lora_alpha", rank))
    for pattern, value in dict(config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?{pattern}", module):
            alpha = float(value)
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return scale * (up.float() @ down.float())


def is_floating(tensor: Tensor) -> bool:
    """Whether a tensor holds weights at full precision (packed ones are integers)."""
    return tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
