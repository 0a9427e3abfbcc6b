"""What happened during a demo: joints, commands, inferences and goals over time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalSpan:
    """One goal on the time axis [s]."""

    begin_s: float
    end_s: float
    task: str
    outcome: str


@dataclass(slots=True, kw_only=True)
class Series:
    """Values over time: `times_s` [N] and `values`, N rows."""

    times_s: list[float] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, time_s: float, value: NDArray[np.float64]) -> None:
        """Append one row."""
        self.times_s.append(time_s)
        self.values.append(value)

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times float64 [N] and rows float64 [N, A], as far as they have been recorded."""
        count = min(len(self.times_s), len(self.values))
        if not count:
            return np.zeros(0), np.zeros((0, 0))
        return np.asarray(self.times_s[:count]), np.stack(self.values[:count])


@dataclass(slots=True, kw_only=True)
class History:
    """Everything that `demo.png` shows; columns are `names`."""

    names: tuple[str, ...]
    measured: Series = field(default_factory=Series)
    commanded: Series = field(default_factory=Series)
    inference: Series = field(default_factory=Series)
    goals: list[GoalSpan] = field(default_factory=list)
