"""A backbone's folder: weights under Transformers' names, config, tokenizer and image settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastvla_core.models.backbones.vlm import lora as adapters
from fastvla_core.models.checkpoint import write_json, write_tensors, written_atomically
from fastvla_core.models.lerobot.stored import ADAPTER, ADAPTER_CONFIG, INDEX, SINGLE
from fastvla_core.quant import Nf4Linear, quantized_layers

# Beside weights and config: tokenizer, image settings, chat template, model card.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.md", "LICENSE*")
_OWN = ("config.json", "generation_config.json", INDEX, SINGLE, ADAPTER, ADAPTER_CONFIG)


def save_backbone(network: Any, folder: Path, *, source: Path, origin: str) -> None:
    """Write the network to `folder`; with adapters, the adapter alone.

    Args:
        source: Folder that the companions (tokenizer and so on) are copied from.
        origin: Folder or Hub name that an adapter names as its base.
    """
    with written_atomically(folder) as temporary:
        if adapters.is_adapted(network):
            adapters.save(network, temporary, base=origin)
            return
        if quantized_layers(network):
            _save_quantized(network, temporary)
        else:
            network.save_pretrained(temporary)
        for pattern in _COMPANIONS:
            for path in sorted(source.glob(pattern)):
                if path.name not in _OWN and not (temporary / path.name).exists():
                    shutil.copy2(path, temporary / path.name)


def _save_quantized(network: Any, folder: Path) -> None:
    tied = _tied(network)
    state: dict[str, Tensor] = {
        name: tensor for name, tensor in network.state_dict().items() if name not in tied
    }
    write_tensors(folder / SINGLE, state)
    config = json.loads(network.config.to_json_string(use_diff=False))
    write_json(folder / "config.json", {**config, "quantization_config": _quantization(network)})
    if network.can_generate():
        network.generation_config.save_pretrained(folder)


def _tied(network: nn.Module) -> set[str]:
    """Names of weights that are other weights too: a file holds each once."""
    seen: set[int] = set()
    tied: set[str] = set()
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            tied.add(name)
        seen.add(id(parameter))
    return tied


def _quantization(network: nn.Module) -> dict[str, Any]:
    """What Transformers needs to load the weights with bitsandbytes."""
    layers = quantized_layers(network)
    kept = [
        name
        for name, module in network.named_modules()
        if type(module) is nn.Linear and name not in layers
    ]
    four = any(isinstance(layer, Nf4Linear) for layer in layers.values())
    common = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": kept}
    if four:
        return {
            **common,
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": False,
        }
    return {**common, "load_in_8bit": True}
