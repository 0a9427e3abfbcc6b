"""How much memory a training run will need, before it starts; what would fit if it does not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.quant import memory_bytes
from training.live_memory import training_peak
from training.recipe import TrainConfig
from training.sharding import layers_of

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
        activations: What the passes over one part of a batch hold at most beside these, measured:
            activations, weights cast to 16 bits, unpacked weights.
        part: Samples of such a part.
        gathered: What is whole for a moment of weights that are kept in parts, and its gradients;
            0 where every process keeps all.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int
    part: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """All together, with a margin of 15 %."""
        kept = self.weights + self.gradients + self.optimizer + self.averages
        return round(_SPARE * (kept + self.gathered + self.activations))

    @property
    def parts(self) -> dict[str, int]:
        """Its parts by what people call them."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "averages": self.averages,
            **({"gathered for a moment": self.gathered} if self.gathered else {}),
            f"activations of {self.part} samples": self.activations,
        }

    def in_words(self) -> str:
        """One line for people."""
        listed = ", ".join(f"{name} {gigabytes(value)}" for name, value in self.parts.items())
        return f"{gigabytes(self.total)} ({listed}, 15 % margin)"

    def table(self) -> list[str]:
        """A line per part, and one for all together."""
        rows = {**self.parts, "with a margin of 15 %": self.total}
        return [f"{name:28} {gigabytes(value):>10}" for name, value in rows.items()]


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
    processes: int = 1,
) -> MemoryEstimate:
    """Count what is stored, and measure what the passes over one and two samples hold at most.

    Args:
        measure: The loss of a batch.
        samples: A batch of so many samples.
        part: Samples of a part of a batch.
        processes: That train together.
    """
    one, two = 0, 0
    if config.activations != "offload":
        one, two = (_peak(model, measure, samples(count)) for count in (1, 2))
    activations = one + (part - 1) * max(0, two - one)
    return counted(model, config=config, part=part, activations=activations, processes=processes)


def counted(
    model: nn.Module, *, config: TrainConfig, part: int, activations: int, processes: int = 1
) -> MemoryEstimate:
    """The estimate of a network whose `activations` are known; it is still whole."""
    trained = _trained(model)
    whole = MemoryEstimate(
        weights=memory_bytes(model),
        gradients=_GRADIENT * trained,
        optimizer=_OPTIMIZER[config.optimizer] * trained,
        averages=_AVERAGE * trained,
        activations=activations,
        part=part,
    )
    if processes == 1 or config.parallel == "ddp":
        return whole
    if config.parallel == "deepspeed":
        return _with_zero(whole, config=config, trained=trained, processes=processes)
    kept = ("weights", "gradients", "optimizer", "averages")
    return dataclasses.replace(whole, gathered=_gathered(model), **_parts(whole, kept, processes))


def _parts(whole: MemoryEstimate, names: tuple[str, ...], processes: int) -> dict[str, int]:
    return {name: -(-getattr(whole, name) // processes) for name in names}


def _with_zero(
    whole: MemoryEstimate, *, config: TrainConfig, trained: int, processes: int
) -> MemoryEstimate:
    zero = config.deepspeed["zero_optimization"]
    kept = ("gradients", "optimizer") if zero["stage"] == 2 else ("optimizer",)
    # It keeps a copy of the weights that it updates, and gathers gradients in a bucket.
    copied = _GRADIENT * trained // processes
    bucket = _GRADIENT * min(int(zero.get("reduce_bucket_size", 5e8)), trained)
    return dataclasses.replace(
        whole, weights=whole.weights + copied, gathered=bucket, **_parts(whole, kept, processes)
    )


def _gathered(model: nn.Module) -> int:
    """Bytes of what is in no layer, with its gradients, and of two layers with theirs.

    Two: while one is at work, the next one's weights come in and the last one's gradients go out.
    """
    layers = [(memory_bytes(layer), _GRADIENT * _trained(layer)) for layer in layers_of(model)]
    rest = memory_bytes(model) + _GRADIENT * _trained(model) - sum(map(sum, layers))
    return rest + 2 * max(map(sum, layers), default=0)


def _trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


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
    if config.optimizer == "adamw" and config.parallel == "ddp":
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
        "`activations: recompute`, keep the weights in parts on several GPUs "
        "(`parallel: fsdp`), or use a smaller policy or a larger machine"
    )


def _peak(
    model: nn.Module,
    measure: Callable[[Mapping[str, Tensor]], Tensor],
    batch: Mapping[str, Tensor],
) -> int:
    tensors = [value for value in batch.values() if isinstance(value, Tensor)]
    return training_peak(model, lambda: measure(batch), tensors)
