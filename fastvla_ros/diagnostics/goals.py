"""What a policy server has done since it was configured."""

from __future__ import annotations

from collections import Counter, deque

from fastvla_ros.diagnostics.histogram import LatencyHistogram
from fastvla_ros.nodes.goal_types import GoalEnd, PathLatency

_KEPT_PATHS = 10_000


class PathHistory(deque[PathLatency]):
    """The latest ways from image to command, and histograms of all of them.

    Attributes:
        inference: How long the policy took.
        overhead: The rest of the way, waiting for the control tick included.
        path: All of it: from the arrival of the last image to the command.
    """

    def __init__(self) -> None:
        super().__init__(maxlen=_KEPT_PATHS)
        self.inference, self.overhead = LatencyHistogram(), LatencyHistogram()
        self.path = LatencyHistogram()

    def append(self, latency: PathLatency) -> None:
        """Take one more."""
        super().append(latency)
        self.inference.observe((latency.finished_ns - latency.started_ns) * 1e-9)
        self.overhead.observe(latency.overhead_s)
        self.path.observe((latency.published_ns - latency.arrived_ns) * 1e-9)

    def values(self) -> dict[str, float | int]:
        """Keys and numbers of a status."""
        return {
            **self.inference.values("inference"),
            **self.overhead.values("overhead"),
            **self.path.values("path"),
        }


class GoalTotals:
    """Counts over all goals.

    Attributes:
        last: How the last one ended.
    """

    def __init__(self) -> None:
        self.last: GoalEnd | None = None
        self._ends: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()

    def add(self, end: GoalEnd) -> None:
        """Take the end of a goal."""
        self.last = end
        self._ends[end.code.name] += 1
        self._sums.update(
            inferences=end.inferences,
            commands_sent=end.commands_sent,
            commands_limited=end.commands_limited,
            deadline_misses=end.deadline_misses,
        )

    def values(self) -> dict[str, str | float | int]:
        """Keys and numbers of a status."""
        values: dict[str, str | float | int] = {
            "goals": self._ends.total(),
            **{f"goals.{code}": count for code, count in sorted(self._ends.items())},
            **{
                name: self._sums[name]
                for name in ("inferences", "commands_sent", "commands_limited", "deadline_misses")
            },
        }
        if self.last is not None:
            values |= {
                "last_goal.end": self.last.code.name,
                "last_goal.outcome": self.last.outcome.name,
                "last_goal.message": self.last.message,
                "last_goal.latency_p50_s": self.last.latency_p50_s,
                "last_goal.latency_p99_s": self.last.latency_p99_s,
                "last_goal.deadline_misses": self.last.deadline_misses,
            }
        return values
