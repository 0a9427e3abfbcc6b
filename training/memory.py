"""How much memory a training run will need, before it starts; what would fit if it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.quant import memory_bytes
from training.recipe import TrainConfig

_GRADIENT, _AVERAGE = 4, 4
_OPTIMIZER = {"adamw": 8, "adamw_8bit": 2}
# Beside what is counted: the allocator's rest, the batch itself, the running program.
_SPARE = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one training process on its device.

    Attributes:
        weights: As they are stored, packed ones included.
        gradients, optimizer, averages: Of the weights that are trained.
        activations: What one part of a batch keeps for its backward pass, measured.
        part: Samples of such a part.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int
    part: int

    @property
    def total(self) -> int:
        """All together, with a margin of 15 %."""
        kept = self.weights + self.gradients + self.optimizer + self.averages
        return round(_SPARE * (kept + self.activations))

    def in_words(self) -> str:
        """One line for people."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "averages": self.averages,
            f"activations of {self.part} samples": self.activations,
        }
        listed = ", ".join(f"{name} {gigabytes(value)}" for name, value in parts.items())
        return f"{gigabytes(self.total)} ({listed}, 15 % margin)"


def gigabytes(count: float) -> str:
    """Bytes in GB, as text."""
    return f"{count / 1e9:.2f} GB"


def estimate_memory(
    model: nn.Module,
    measure: Callable[[Mapping[str, Tensor]], Tensor],
    samples: Callable[[int], Mapping[str, Tensor]],
    *,
    config: TrainConfig,
    part: int,
) -> MemoryEstimate:
    """Count what is stored, and measure what the backward pass of one and two samples keeps.

    Args:
        measure: The loss of a batch.
        samples: A batch of so many samples.
        part: Samples of a part of a batch.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    one, two = 0, 0
    if config.activations != "offload":
        one, two = (_kept_bytes(model, lambda n=n: measure(samples(n))) for n in (1, 2))
    return MemoryEstimate(
        weights=memory_bytes(model),
        gradients=_GRADIENT * trained,
        optimizer=_OPTIMIZER[config.optimizer] * trained,
        averages=_AVERAGE * trained,
        activations=one + (part - 1) * max(0, two - one),
        part=part,
    )


def require_memory(estimate: MemoryEstimate, available: int, *, config: TrainConfig) -> None:
    """See that a run fits.

    Raises:
        DatasetError: it does not; says what would.
    """
    if estimate.total <= available:
        return
    raise DatasetError(
        f"training needs about {estimate.in_words()}, and {gigabytes(available)} are free",
        mend=_what_would_fit(estimate, available, config=config),
    )


def available_memory(device: torch.device) -> int:
    """Free bytes of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _what_would_fit(estimate: MemoryEstimate, available: int, *, config: TrainConfig) -> str:
    changes, saved = [], 0.0
    if config.optimizer == "adamw":
        changes.append("`optimizer: adamw_8bit`")
        saved += estimate.optimizer * 0.75
    parts = config.accumulate
    while parts < config.batch_size:
        if _SPARE * (estimate.total / _SPARE - saved) <= available:
            return "set " + " and ".join(changes) + " in the recipe's `training`"
        parts *= 2
        if config.batch_size % parts == 0:
            share = config.accumulate / parts
            smaller = [*changes, f"`accumulate: {parts}`"]
            rest = estimate.total / _SPARE - saved - estimate.activations * (1 - share)
            if _SPARE * rest <= available:
                return "set " + " and ".join(smaller) + " in the recipe's `training`"
    return (
        "train adapters on packed weights (`lora: {quantization: nf4}`) with "
        "`activations: recompute`, or use a smaller policy or a larger machine"
    )


def _kept_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that a backward pass would find, beside the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # Held until all is counted: what is freed could come back under the same address.
        loss = forward()
    del loss
    return sum(kept.values())
