"""NF4 and 8-bit weights: packing, layers, and the exchange format of bitsandbytes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import QuantizedLinear, dequantized
    from .convert import (
        Mode,
        memory_bytes,
        prepare_for_state,
        quantizable_layers,
        quantize_module,
        quantized_layers,
    )
    from .linear import Int8Linear, Nf4Linear

__all__ = [
    "Int8Linear",
    "Mode",
    "Nf4Linear",
    "QuantizedLinear",
    "dequantized",
    "memory_bytes",
    "prepare_for_state",
    "quantizable_layers",
    "quantize_module",
    "quantized_layers",
]

_HOMES = {
    "QuantizedLinear": ".base",
    "dequantized": ".base",
    "Int8Linear": ".linear",
    "Nf4Linear": ".linear",
}


def __getattr__(name: str) -> Any:
    # `fastvla quantize --help` imports this package and should not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, ".convert"), __name__), name)
