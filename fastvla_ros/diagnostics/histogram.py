"""Latencies as counts in fixed buckets, in constant memory."""

from __future__ import annotations

import bisect
from collections import deque

import numpy as np

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the buckets [s]: 1, 2, 5 per decade, and one bucket beyond.

They are the same for every latency and every release, so that counts of many robots and weeks can
be added up.
"""

_RECENT = 1000


class LatencyHistogram:
    """Counts since the start, as Prometheus counts them; percentiles of the last thousand."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)

    @property
    def count(self) -> int:
        """Observations since the start."""
        return sum(self._counts)

    def observe(self, latency_s: float) -> None:
        """Count one latency [s]."""
        # A bucket holds what is less than or equal to its bound.
        self._counts[bisect.bisect_left(BOUNDS_S, latency_s)] += 1
        self._sum_s += latency_s
        self._recent.append(latency_s)

    def percentile_s(self, percent: float) -> float:
        """Of the last thousand [s]; 0 before the first."""
        recent = list(self._recent)
        return float(np.percentile(recent, percent)) if recent else 0.0

    def values(self, name: str) -> dict[str, float | int]:
        """Keys and numbers of a status.

        `<name>.p50_s` and `.p99_s`; `.le_<bound>` counts all that took at most so long, `.le_inf`
        all, as the buckets of a Prometheus histogram do; `.sum_s` and `.count` give the mean.
        """
        cumulative = np.cumsum(self._counts).tolist()
        labels = [*(f"{bound:g}" for bound in BOUNDS_S), "inf"]
        return {
            f"{name}.p50_s": self.percentile_s(50),
            f"{name}.p99_s": self.percentile_s(99),
            **{f"{name}.le_{label}": count for label, count in zip(labels, cumulative)},
            f"{name}.sum_s": self._sum_s,
            f"{name}.count": self.count,
        }
