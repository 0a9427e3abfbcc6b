"""Low-rank adapters (LoRA) on a policy's linear layers, by peft; on packed layers that is QLoRA.

Source: LoRA, arXiv:2106.09685; QLoRA, arXiv:2305.14314.
"""

from __future__ import annotations

import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError, DependencyError
from fastvla_core.models.checkpoint import write_json, write_tensors
from fastvla_core.models.lerobot.stored import ADAPTER, ADAPTER_CONFIG
from fastvla_core.models.lora import LoraConfig
from fastvla_core.quant import Int8Linear, Nf4Linear, QuantizedLinear, quantize_module

_PEFT_PREFIX = "base_model.model."
_NAME = "default"


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
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, config, chosen)
    for module in whole:
        module.requires_grad_(True)
    return chosen


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name."""
    return {n: m for n, m in model.named_modules() if hasattr(m, "lora_A") and n}


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the network as it was, adapters added in; packed layers are unpacked.

    Keys are those of the network before `add_adapters`.
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    state = {
        key: value
        for key, value in model.state_dict().items()
        if ".lora_" not in key and not any(key.startswith(f"{name}.") for name in packed)
    }
    for name, layer in packed.items():
        state[f"{name}.weight"] = layer.dense(torch.float32)
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias.detach()
    state = {key.replace(".base_layer.", "."): value for key, value in state.items()}
    for name, layer in adapted_layers(model).items():
        weight, change = state[f"{name}.weight"], layer.get_delta_weight(_NAME)
        state[f"{name}.weight"] = (weight.float() + change.float()).to(weight.dtype)
    return state


def save_adapter(folder: Path, model: nn.Module, config: LoraConfig, *, base: str) -> None:
    """Write adapters, and what was trained whole, as peft does.

    Args:
        base: The checkpoint that they belong to: a folder or a name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _PEFT_PREFIX + name.replace(f".{_NAME}.", "."): value.detach()
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


def _inject(model: nn.Module, config: LoraConfig, names: tuple[str, ...]) -> None:
    try:
        import peft
        from peft.tuners.lora import Linear
    except ImportError as error:
        raise DependencyError(
            "adapters need peft, which cannot be imported",
            mend="pip install 'fastvla[lora]'",
        ) from error
    options = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        target_modules=list(names),
    )
    # Packed layers compute x W^T + b like any linear layer, and that is all an adapter needs.
    options._register_custom_module({Nf4Linear: Linear, Int8Linear: Linear})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        peft.inject_adapter_in_model(options, model, adapter_name=_NAME)
