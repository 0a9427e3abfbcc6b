"""The loss of a network whose gradients several processes share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.processes import Processes
from training.recipe import Parallel
from training.sharding import shard
from training.zero import is_engine

Objective: TypeAlias = Callable[..., Tensor]


class _Loss(nn.Module):
    """A network's loss as its forward pass, which is where gradients are shared."""

    def __init__(self, network: nn.Module, objective: Objective | None) -> None:
        super().__init__()
        self.network = network
        self._objective = objective

    def forward(
        self, batch: dict[str, Tensor], generator: torch.Generator, step: int = 0
    ) -> Tensor:
        """The loss of a batch, a scalar with gradient."""
        if self._objective is not None:
            return self._objective(self.network, batch, generator=generator, step=step)
        loss: Callable[..., dict[str, Tensor]] = self.network.loss  # type: ignore[assignment]
        return loss(batch, generator=generator)["loss"]


class _LossInParts(_Loss):
    def forward(
        self, batch: dict[str, Tensor], generator: torch.Generator, step: int = 0
    ) -> Tensor:
        """See `_Loss`."""
        with warnings.catch_warnings():
            # It warns of layers that return views, for those who then change them in place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            return super().forward(batch, generator, step)


def shared_loss(
    network: nn.Module,
    processes: Processes,
    *,
    device: torch.device,
    parallel: Parallel = "ddp",
    objective: Objective | None = None,
) -> nn.Module:
    """The loss of a network; its gradients become the mean over all processes.

    Args:
        device: Of this process.
        parallel: With "fsdp" the network's weights become parts, in place. With "deepspeed"
            `zero.divide` takes it from here.
        objective: Takes the place of the network's own loss; called with network, batch,
            generator and step.
    Raises:
        DependencyError: PyTorch is too old for parts.
    """
    if processes.count == 1 or parallel == "deepspeed":
        return _Loss(network, objective)
    if parallel == "fsdp":
        loss = _LossInParts(network, objective)
        shard(loss, device=device)
        return loss
    # A camera that a whole batch lacks leaves its weights without a gradient.
    return DistributedDataParallel(_Loss(network, objective), find_unused_parameters=True)


def gradients_shared(loss: nn.Module, *, when: bool) -> contextlib.AbstractContextManager[None]:
    """Share the gradients of this backward pass, or only add them to one's own.

    Where weights are in parts they are always shared: unshared ones would be whole.
    """
    if is_engine(loss):
        # It shares after every part of a batch, and is told which one is the last.
        loss.set_gradient_accumulation_boundary(when)
    if when or not isinstance(loss, DistributedDataParallel):
        return contextlib.nullcontext()
    return loss.no_sync()
