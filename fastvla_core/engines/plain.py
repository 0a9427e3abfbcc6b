"""The network as it is written, and the same with its parts compiled."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from fastvla_core.engines.interface import Batch
from fastvla_core.engines.names import EngineName
from fastvla_core.quant import dequantized, quantized_layers


class PlainEngine:
    """Calls the network.

    Args:
        model: Of any policy.
        name: "eager", or "compiled" where its parts have been.
    """

    def __init__(self, model: Any, *, name: EngineName) -> None:
        self.model = model
        self.name: EngineName = name
        # Looking through all layers takes time in every request.
        self._unpacked = dequantized if quantized_layers(model) else nullcontext

    def prepare(self, batch: Batch, noise_bta: Tensor) -> None:
        """Run once: what is compiled is compiled then."""
        self(batch, noise_bta)

    def __call__(self, batch: Batch, noise_bta: Tensor) -> Tensor:
        """Run a request; see `Engine`."""
        with torch.inference_mode(), self._unpacked(self.model):
            return self.model(batch, noise_bta)
