"""NF4 and 8-bit weights: packing, layers, and the exchange format of bitsandbytes."""

from __future__ import annotations

from .base import QuantizedLinear, dequantized
from .convert import Mode, memory_bytes, prepare_for_state, quantize_module, quantized_layers
from .linear import Int8Linear, Nf4Linear

__all__ = [
    "Int8Linear",
    "Mode",
    "Nf4Linear",
    "QuantizedLinear",
    "dequantized",
    "memory_bytes",
    "prepare_for_state",
    "quantize_module",
    "quantized_layers",
]
