"""Low-rank adapters (LoRA) on a policy's linear layers, by peft; on packed layers that is QLoRA.

Source: LoRA, arXiv:2106.09685; QLoRA, arXiv:2305.14314.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import write_json, write_tensors
from fastvla_core.models.lerobot.stored import ADAPTER, ADAPTER_CONFIG
from fastvla_core.models.lora import LoraConfig
from fastvla_core.models.peft_layers import ADAPTER_NAME, PEFT_PREFIX, import_peft, inject
from fastvla_core.models.seeding import drawn_from
from fastvla_core.quant import QuantizedLinear, quantize_module


def add_adapters(model: nn.Module, config: LoraConfig, *, seed: int = 0) -> tuple[str, ...]:
    """Freeze a network, pack its layers where asked, and put fresh adapters beside them.

    A fresh adapter's second matrix is zero: the network's outputs stay as they are.

    Args:
        seed: Of the first matrices.
    Returns:
        The names of the layers that got one.
    Raises:
        CheckpointError: no layer's name matches.
        DependencyError: peft is not installed.
        QuantError: the weights cannot be packed.
    """
    if config.quantization is not None:
        skip = getattr(model, "full_precision", ())
        quantize_module(model, config.quantization, skip=(*skip, *config.whole))
    linear = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, QuantizedLinear))]
    chosen = tuple(
        n for n in linear if _matches(n, config.modules) and not _matches(n, config.whole)
    )
    if not chosen:
        raise CheckpointError(
            f"lora.modules {', '.join(config.modules)} match no linear layer of this policy",
            mend=f"its layers are called, for example, {', '.join(linear[:3])}",
        )
    whole = [m for n, m in model.named_modules() if _matches(n, config.whole)]
    with drawn_from(seed):
        inject(model, _peft_config(config, chosen))
    for module in whole:
        module.requires_grad_(True)
    return chosen


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name."""
    return {n: m for n, m in model.named_modules() if hasattr(m, "lora_A") and n}


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the network as it was, adapters added in; packed layers are unpacked.

    Keys are those of the network before `add_adapters`. On the CPU: unpacked, they may not fit the
    device of the network.
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    state = {
        key: value.cpu()
        for key, value in model.state_dict().items()
        if ".lora_" not in key and not any(key.startswith(f"{name}.") for name in packed)
    }
    for name, layer in packed.items():
        state[f"{name}.weight"] = layer.dense(torch.float32).cpu()
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias.detach().cpu()
    state = {key.replace(".base_layer.", "."): value for key, value in state.items()}
    for name, layer in adapted_layers(model).items():
        weight, change = state[f"{name}.weight"], layer.get_delta_weight(ADAPTER_NAME).cpu()
        state[f"{name}.weight"] = (weight.float() + change.float()).to(weight.dtype)
    return state


def save_adapter(folder: Path, model: nn.Module, config: LoraConfig, *, base: str) -> None:
    """Write adapters, and what was trained whole, as peft does.

    Args:
        base: The checkpoint that they belong to: a folder or a name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        PEFT_PREFIX + name.replace(f".{ADAPTER_NAME}.", "."): value.detach()
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    write_tensors(folder / ADAPTER, tensors)
    write_json(
        folder / ADAPTER_CONFIG,
        {
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "target_modules": sorted(adapted_layers(model)),
            "bias": "none",
            "inference_mode": True,
        },
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return bool(name) and any(fnmatchcase(name, pattern) for pattern in patterns)


def _peft_config(config: LoraConfig, names: tuple[str, ...]) -> Any:
    return import_peft().LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(names),
    )
