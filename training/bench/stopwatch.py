"""Wall and processor time of one thing that is done many times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np


class Stopwatch:
    """Collects the times of its laps."""

    def __init__(self) -> None:
        self._wall_ms: list[float] = []
        self._cpu_ms: list[float] = []

    @contextlib.contextmanager
    def lap(self, *, counted: bool = True) -> Iterator[None]:
        """Time the block; one that is not counted leaves no trace."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        if counted:
            self._cpu_ms.append((time.process_time() - cpu) * 1e3)
            self._wall_ms.append((time.perf_counter() - wall) * 1e3)

    @property
    def p50_ms(self) -> float:
        """Median wall time [ms]."""
        return float(np.median(self._wall_ms))

    @property
    def cpu_ms(self) -> float:
        """Median time of the processor, all threads together [ms]."""
        return float(np.median(self._cpu_ms))
