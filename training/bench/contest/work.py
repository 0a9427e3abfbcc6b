"""What an inference has to multiply and to read at least, counted on the network itself.

Source of the bound: Williams, Waterman and Patterson, Roofline, CACM 52 (2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastvla_core.models.loading import Quantization, skipped_layers
from fastvla_core.quant import quantizable_layers
from training.bench.contest.job import Batch
from training.bench.contest.rates import Rates

_PACKED: tuple[Quantization, ...] = ("int8", "nf4")
BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 4.5 / 8}
# What runs once per flow step; where the small layers are not part of the expert.
_FLOW_PARTS = ("expert", "action_in", "action_out", "time_in", "time_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One use of one layer.

    Attributes:
        flops: Of the product.
        weights: Elements that are read.
        packed: The kinds of weights, "int8" or "nf4", that store the layer in fewer bits.
    """

    flops: float
    weights: int
    packed: frozenset[str] = frozenset()

    def weight_bytes(self, *, weights: str, compute: str) -> float:
        """Bytes of weights that are read."""
        return self.weights * BYTES_PER_WEIGHT[weights if weights in self.packed else compute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All of an inference.

    Attributes:
        calls: Uses of layers with weights; a layer of the expert has one per flow step.
        flops: Of everything, attention included.
        flow_flops: Of the expert and the layers round it, all flow steps together.
    """

    calls: tuple[Call, ...]
    flops: float
    flow_flops: float

    def weight_bytes(self, *, weights: str, compute: str) -> float:
        """Bytes of weights that are read; what is not packed is in the type of the products."""
        return sum(call.weight_bytes(weights=weights, compute=compute) for call in self.calls)

    def floor_s(self, rates: Rates, *, weights: str, compute: str) -> float:
        """No faster with these rates: each layer multiplies or reads, whichever takes longer.

        Activations, keys and values are left out: at best they stay on the chip.
        """
        flops_per_s, bytes_per_s = rates.flops_per_s[compute], rates.copy_bytes_per_s
        layers_s = sum(
            max(
                call.flops / flops_per_s,
                call.weight_bytes(weights=weights, compute=compute) / bytes_per_s,
            )
            for call in self.calls
        )
        rest = self.flops - sum(call.flops for call in self.calls)
        return layers_s + max(0.0, rest) / flops_per_s


def count_work(model: Any, batch: Batch) -> Work:
    """Count one inference of a network on "meta": nothing is computed, no memory is taken.

    Args:
        batch: Of any device; only its shapes matter.
    """
    calls: list[Call] = []
    packed = {
        kind: set(quantizable_layers(model, skip=skipped_layers(model, kind)).values())
        for kind in _PACKED
    }

    def note(module: nn.Module, inputs: Iterable[Tensor], output: Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters(recurse=False))
        flops = 0.0
        if isinstance(module, nn.Linear):
            flops = 2.0 * output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            flops = 2.0 * output.numel() * module.weight[0].numel()
        else:
            weights = output.numel()
        kinds = frozenset(kind for kind, layers in packed.items() if module in layers)
        calls.append(Call(flops=flops, weights=weights, packed=kinds))

    # Norms have a few thousand weights, and are not always called as modules.
    counted = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))]
    hooks = [module.register_forward_hook(note) for module in counted]
    on_meta = {name: tensor.to("meta") for name, tensor in batch.items()}
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(on_meta, on_meta["noise"])
    finally:
        for hook in hooks:
            hook.remove()
    counts = counter.get_flop_counts()
    name = type(model).__name__
    parts = [f"{name}.{part}" for part in _FLOW_PARTS]
    return Work(
        calls=tuple(calls),
        flops=float(counter.get_total_flops()),
        flow_flops=float(sum(sum(counts.get(part, {}).values()) for part in parts)),
    )
