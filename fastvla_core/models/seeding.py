"""Random numbers that torch draws by itself, such as those of dropout, from a given generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """What is drawn on the CPU meanwhile, such as new weights, follows from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators from `generator`; afterwards they go on as if nothing was.

    A training step that is repeated after a resume drops the same units again.
    """
    seed = torch.randint(2**31, (), generator=generator, device=generator.device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(seed))
        yield


def seeded_beside(
    generator: torch.Generator, device: torch.device
) -> contextlib.AbstractContextManager[None]:
    """As `seeded`, but `generator` goes on as if nothing had been drawn from it."""
    return seeded(generator.clone_state(), device)
