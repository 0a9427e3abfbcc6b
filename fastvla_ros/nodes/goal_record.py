"""What is counted and measured during one goal, and told in its feedback and result."""

from __future__ import annotations

from collections import deque

import numpy as np

from fastvla_core.runtime.engine import Inference
from fastvla_core.types import Observation
from fastvla_ros.nodes.goal_types import (
    GoalCode,
    GoalEnd,
    GoalFeedback,
    GoalState,
    Instant,
    Outcome,
    PathLatency,
)

_FEEDBACK_PERIOD_NS = 500_000_000


class GoalRecord:
    """Counters and latencies of one goal.

    Args:
        period_ns: The control period; a tick more than 1.5 of them after the last is a miss.
        path: Takes the way of each chunk's observation to the robot.

    Attributes:
        limited: Commands that the guard has limited.
        observation: The one that was inferred from last.
    """

    def __init__(self, *, now: Instant, period_ns: int, path: deque[PathLatency]) -> None:
        self.limited = 0
        self.observation: Observation | None = None
        self._started, self._period_ns, self._path = now, period_ns, path
        self._last_tick_ns: int | None = None
        self._told_ns = now.steady_ns
        self._told: tuple[GoalState, str] | None = None
        self._latencies_s: list[float] = []
        self._sent = self._misses = 0
        self._under_way: tuple[int, Inference] | None = None

    def elapsed_s(self, now: Instant) -> float:
        """Since acceptance [s]."""
        return (now.steady_ns - self._started.steady_ns) * 1e-9

    def on_tick(self, now: Instant) -> None:
        """Count one control tick."""
        last_ns, self._last_tick_ns = self._last_tick_ns, now.steady_ns
        if last_ns is not None and now.steady_ns - last_ns > 1.5 * self._period_ns:
            self._misses += 1

    def on_inference(self, inference: Inference, *, arrived_ns: int | None) -> None:
        """Take a finished inference and when its last image came in (monotonic)."""
        self._latencies_s.append(inference.latency_s)
        self._under_way = None if arrived_ns is None else (arrived_ns, inference)

    def on_published(self, *, steady_ns: int) -> None:
        """Count one command; the first after an inference completes its path."""
        self._sent += 1
        if self._under_way is None:
            return
        (arrived_ns, inference), self._under_way = self._under_way, None
        self._path.append(
            PathLatency(
                arrived_ns=arrived_ns,
                started_ns=inference.started_ns,
                finished_ns=inference.finished_ns,
                ticked_ns=self._last_tick_ns or steady_ns,
                published_ns=steady_ns,
            )
        )

    def feedback(
        self, now: Instant, *, state: GoalState, queue_depth: int, blocking: str, news: bool
    ) -> GoalFeedback | None:
        """What to tell now; None when nothing is new and the last words are not old."""
        silent_ns = now.steady_ns - self._told_ns
        same = (state, blocking) == self._told
        if not news and same and silent_ns < _FEEDBACK_PERIOD_NS:
            return None
        self._told, self._told_ns = (state, blocking), now.steady_ns
        seen = self.observation
        age_ns = now.ros_ns - (seen.stamp_ns - seen.oldest_age_ns) if seen else 0
        return GoalFeedback(
            state=state,
            elapsed_s=self.elapsed_s(now),
            chunk_index=max(0, len(self._latencies_s) - 1),
            queue_depth=queue_depth,
            inference_s=self._latencies_s[-1] if self._latencies_s else 0.0,
            oldest_age_s=age_ns * 1e-9,
            camera_skew_s=seen.camera_skew_ns * 1e-9 if seen else 0.0,
            blocking_stream=blocking,
        )

    def end(
        self, now: Instant, *, code: GoalCode, message: str, outcome: Outcome, last_command: bool
    ) -> GoalEnd:
        """The result; `last_command` says that one more command goes out with it."""
        latency_s = np.asarray(self._latencies_s or [0.0])
        return GoalEnd(
            code=code,
            message=message,
            outcome=outcome,
            elapsed_s=self.elapsed_s(now),
            inferences=len(self._latencies_s),
            commands_sent=self._sent + last_command,
            commands_limited=self.limited,
            deadline_misses=self._misses,
            latency_p50_s=float(np.percentile(latency_s, 50)),
            latency_p99_s=float(np.percentile(latency_s, 99)),
        )
