"""Bounded histories of each stream, filled the same way by live messages and by bags."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass
from typing import Any

from fastvla_core.errors import ObservationError

JOINT_STATES = "joint_states"
"""Name of the joint stream; every other stream has its camera's name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a stream at its stamp [ns]."""

    stamp_ns: int
    value: Any


class StreamBuffers:
    """The newest samples per stream, sorted by stamp; safe to fill from several threads.

    Args:
        capacity: Samples kept per stream.
        capacities: Other capacities, by stream name (a camera needs fewer than the joints).
    """

    def __init__(self, *, capacity: int = 64, capacities: dict[str, int] | None = None) -> None:
        self._capacity = capacity
        self._capacities = dict(capacities or {})
        self._samples: dict[str, list[Sample]] = {}
        self._lock = threading.Lock()
        self._span_ns = 0
        self.clock_jumps = 0

    def keep(self, span_ns: int) -> None:
        """Keep more than the capacity where the newest `span_ns` of a stream need it."""
        with self._lock:
            self._span_ns = span_ns

    def push(self, stream: str, *, stamp_ns: int, value: Any) -> bool:
        """Add one sample; returns False for a duplicate or one too old to keep.

        A stamp more than a second behind the newest is a backward clock jump: every stream
        is cleared, because no older sample can be compared with the new clock.
        """
        with self._lock:
            capacity = self._capacities.get(stream, self._capacity)
            samples = self._samples.setdefault(stream, [])
            if samples and stamp_ns < samples[-1].stamp_ns - 1_000_000_000:
                self._samples.clear()
                self.clock_jumps += 1
                samples = self._samples.setdefault(stream, [])
            if not samples or stamp_ns > samples[-1].stamp_ns:
                samples.append(Sample(stamp_ns, value))
            else:
                at = bisect.bisect_left(samples, stamp_ns, key=lambda s: s.stamp_ns)
                too_old = at == 0 and len(samples) >= capacity
                if samples[at].stamp_ns == stamp_ns or too_old:
                    return False
                samples.insert(at, Sample(stamp_ns, value))
            # One older than the span: it is what holds at the span's beginning.
            oldest_ns = samples[-1].stamp_ns - self._span_ns
            needed = len(samples) - bisect.bisect_right(
                samples, oldest_ns, key=lambda s: s.stamp_ns
            )
            del samples[: -max(capacity, needed + 1)]
            return True

    def newest_ns(self, stream: str) -> int | None:
        """Stamp of the newest sample, or None when there is none."""
        with self._lock:
            samples = self._samples.get(stream)
            return samples[-1].stamp_ns if samples else None

    def hold(self, stream: str, *, at_ns: int) -> Sample | None:
        """The newest sample that is not newer than `at_ns`, or None."""
        with self._lock:
            samples = self._samples.get(stream, [])
            at = bisect.bisect_right(samples, at_ns, key=lambda s: s.stamp_ns)
            return samples[at - 1] if at else None

    def around(self, stream: str, *, at_ns: int) -> tuple[Sample | None, Sample | None]:
        """The newest sample that is not newer, and the oldest that is not older than `at_ns`.

        Both are one where a sample is of that very instant.
        """
        with self._lock:
            samples = self._samples.get(stream, [])
            at = bisect.bisect_right(samples, at_ns, key=lambda s: s.stamp_ns)
            before = samples[at - 1] if at else None
            if before is not None and before.stamp_ns == at_ns:
                return before, before
            return before, samples[at] if at < len(samples) else None

    def replace(self, stream: str, *, stamp_ns: int, value: Any) -> None:
        """Give the sample of that stamp another value; nothing happens where there is none."""
        with self._lock:
            samples = self._samples.get(stream, [])
            at = bisect.bisect_left(samples, stamp_ns, key=lambda s: s.stamp_ns)
            if at < len(samples) and samples[at].stamp_ns == stamp_ns:
                samples[at] = Sample(stamp_ns, value)

    def remove(self, stream: str, *, stamp_ns: int) -> None:
        """Forget the sample of that stamp, as if it had never come."""
        with self._lock:
            samples = self._samples.get(stream, [])
            samples[:] = [sample for sample in samples if sample.stamp_ns != stamp_ns]

    def clear(self) -> None:
        """Forget everything, for a new goal that must see fresh frames."""
        with self._lock:
            self._samples.clear()

    def horizon_ns(self, streams: list[str]) -> int:
        """The latest instant that every one of `streams` has reached.

        Aligning there and nowhere later makes live and recorded observations equal: a sample
        that arrives afterwards is newer in its stream and cannot change the answer.

        Raises:
            ObservationError: a stream has no sample yet; names it.
        """
        stamps = []
        for stream in streams:
            stamp = self.newest_ns(stream)
            if stamp is None:
                raise ObservationError(
                    f"stream '{stream}' has published nothing yet",
                    mend="check that its publisher runs: `ros2 topic hz`, `fastvla doctor`",
                )
            stamps.append(stamp)
        return min(stamps)
