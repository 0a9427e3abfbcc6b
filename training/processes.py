"""Several training processes, as `torchrun` starts them: who one is, and what they do together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from fastvla_core.errors import DatasetError

Objective: TypeAlias = Callable[..., Tensor]

# One process may record or convert for hours while the others wait for it.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a run: 0 <= rank < count."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and talks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        if distributed.get_backend() == "nccl":
            total = total.float().cuda()
        distributed.all_reduce(total)
        return float(total) / self.count


ALONE = Processes()


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


def shared_loss(
    network: nn.Module, processes: Processes, *, objective: Objective | None = None
) -> nn.Module:
    """The loss of a network; its gradients become the mean over all processes.

    Args:
        objective: Takes the place of the network's own loss; called with network, batch,
            generator and step.
    """
    if processes.count == 1:
        return _Loss(network, objective)
    # A camera that a whole batch lacks leaves its weights without a gradient.
    return DistributedDataParallel(_Loss(network, objective), find_unused_parameters=True)


def gradients_shared(loss: nn.Module, *, when: bool) -> contextlib.AbstractContextManager[None]:
    """Share the gradients of this backward pass, or only add them to one's own."""
    if when or not isinstance(loss, DistributedDataParallel):
        return contextlib.nullcontext()
    return loss.no_sync()


def rows_of(processes: Processes, *, batch_size: int, parts: int) -> NDArray[np.int64]:
    """The samples of a batch that a process takes, its parts one after the other.

    Raises:
        DatasetError: the batch cannot be shared out evenly.
    """
    shares = processes.count * parts
    if batch_size % shares:
        raise DatasetError(
            f"a batch of {batch_size} cannot be shared by {processes.count} processes in "
            f"{parts} part(s) each",
            mend=f"make `training.batch_size` a multiple of {shares}",
        )
    blocks = np.arange(batch_size).reshape(shares, -1)
    return blocks[processes.rank :: processes.count].reshape(-1)


def training_device(name: str | None = None) -> torch.device:
    """The device that is asked for, else this process's GPU, else the CPU.

    Raises:
        DatasetError: it is not there.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DatasetError(
            f"there is no GPU for `--device {name}`", mend="leave it out to train on the CPU"
        )
    return device


@contextlib.contextmanager
def training_processes() -> Iterator[Processes]:
    """Join the run that the environment of `torchrun` describes; alone where there is none."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
