"""What the device can do at best, measured: bytes copied and products multiplied per second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from training.bench.contest.replay import synchronize

_TRIES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Measured limits of a device.

    Attributes:
        copy_bytes_per_s: Read and written together, of a block that no cache holds.
        flops_per_s: Of large square products, by type ("fp32", "bf16").
    """

    copy_bytes_per_s: float
    flops_per_s: dict[str, float]


def measure_rates(device: str, *, types: tuple[str, ...]) -> Rates:
    """Copy and multiply; about three seconds."""
    size = 2**30 if device == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying_s = _fastest_s(lambda: target.copy_(source), device)
    side = 8192 if device == "cuda" else 1536
    flops = {}
    for name in types:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        flops[name] = 2 * side**3 / _fastest_s(lambda a=a, b=b: a @ b, device)
    return Rates(copy_bytes_per_s=2 * size / copying_s, flops_per_s=flops)


def _fastest_s(work: Callable[[], object], device: str) -> float:
    """Lower quartile of several tries: a limit, but not a lucky one."""
    times = []
    for _ in range(_TRIES + 2):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.quantiles(times[2:], n=4)[0]
