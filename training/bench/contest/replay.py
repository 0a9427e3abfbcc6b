"""Times of one call after the other, and the memory that they take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

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


def forget_peak(device: str) -> None:
    """Let the peak of the memory begin now: what loading took is not what inference takes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        # Documented in proc(5): 5 sets the peak to the present size.
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: str) -> float:
    """Largest memory since `forget_peak` [MB of 10^6]: of the GPU's allocator, or resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    # Not getrusage: its peak begins with the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1.024e-3
