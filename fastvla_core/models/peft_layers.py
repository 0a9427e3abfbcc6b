"""How peft's adapters get onto linear layers, packed ones included."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from fastvla_core.errors import DependencyError
from fastvla_core.quant import Int8Linear, Nf4Linear

ADAPTER_NAME = "default"
# peft wraps the network it adapts in two modules of its own, and files name them.
PEFT_PREFIX = "base_model.model."


def import_peft() -> Any:
    """The library.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            f"LoRA needs peft ({error})", mend="pip install 'fastvla[lora]'"
        ) from error
    return peft


def inject(network: nn.Module, config: Any) -> None:
    """Freeze the network and put the adapters of a `peft.LoraConfig` on it, in place."""
    network.requires_grad_(False)
    peft = import_peft()
    # Its adapter of plain linear layers calls the layer below, which is all that is needed.
    config._register_custom_module(dict.fromkeys((Nf4Linear, Int8Linear), peft.tuners.lora.Linear))
    with warnings.catch_warnings():
        # peft asks the layer for its sizes, gets them, and warns that it does not know it.
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        peft.inject_adapter_in_model(config, network, adapter_name=ADAPTER_NAME)
