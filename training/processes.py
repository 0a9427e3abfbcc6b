"""Several training processes, as `torchrun` or `accelerate launch` starts them: who one is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from fastvla_core.errors import DatasetError

T = TypeVar("T")

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

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all of them."""
        if self.count == 1:
            return make()
        found: list[T] = [make()] if self.first else [None]  # type: ignore[list-item]
        distributed.broadcast_object_list(found)
        return found[0]


ALONE = Processes()


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
    """Join the run that the environment describes; alone where there is none.

    `torchrun` and `accelerate launch` set the same variables.
    """
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
