"""Times of one call after the other, and the memory that they take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch

from fastvla_core.engines.memory import peak_memory
from training.bench.contest.job import Batch


def synchronize(device: str) -> None:
    """Wait for a GPU; the processor's own work is done when a call returns."""
    if device == "cuda":
        torch.cuda.synchronize()


def replay_ms(
    run: Callable[[Batch], object],
    inputs: Sequence[Batch],
    *,
    device: str,
    count: int,
    seconds: float,
    first: int = 0,
) -> list[float]:
    """Wall times [ms] of `count` calls, of fewer where `seconds` are over before; at least one.

    Args:
        inputs: Taken in turn, so that no cache keeps what a robot would have to read anew.
        first: Where among the inputs to start.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    for index in itertools.count(first):
        batch = inputs[index % len(inputs)]
        synchronize(device)
        start = time.perf_counter()
        run(batch)
        synchronize(device)
        now = time.perf_counter()
        times.append((now - start) * 1e3)
        if len(times) >= count or now > end:
            return times
    raise AssertionError("unreachable")


def peak_mb(device: str) -> float:
    """Most memory since `reset_peak_memory` [MB of 10^6]: of the GPU's allocator, or resident."""
    peak = peak_memory(torch.device(device))
    largest = peak.host_bytes if peak.device_bytes is None else peak.device_bytes
    assert largest is not None, "the system does not tell how much memory was used"
    return largest / 1e6
