"""Bounded histories of each stream, filled the same way by live messages and by bags."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

JOINT_STATES = "joint_states"
"""Name of the joint stream; every other stream has its camera's name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a stream at its stamp [ns]."""

    stamp_ns: int
    value: Any


@dataclass(frozen=True, slots=True)
class _History:
    """One stream; the stamps also stand alone, because a search in plain integers is fast."""

    stamps: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def insert(self, at: int, sample: Sample) -> None:
        self.stamps.insert(at, sample.stamp_ns)
        self.samples.insert(at, sample)

    def delete(self, which: slice) -> None:
        del self.stamps[which], self.samples[which]

    def find(self, stamp_ns: int) -> int | None:
        """Where the sample of that very stamp is."""
        at = bisect_left(self.stamps, stamp_ns)
        return at if at < len(self.stamps) and self.stamps[at] == stamp_ns else None


_NOTHING = _History()


class StreamBuffers:
    """The newest samples per stream, sorted by stamp; safe to fill from several threads.

    Args:
        capacity: Samples kept per stream.
        capacities: Other capacities, by stream name (a camera needs fewer than the joints).
    """

    def __init__(self, *, capacity: int = 64, capacities: dict[str, int] | None = None) -> None:
        self._capacity = capacity
        self._capacities = dict(capacities or {})
        self._streams: dict[str, _History] = {}
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
            known = self._history(stream)
            if known.stamps and stamp_ns < known.stamps[-1] - 1_000_000_000:
                self._streams.clear()
                self.clock_jumps += 1
                known = self._history(stream)
            at = bisect_left(known.stamps, stamp_ns)
            if at < len(known.stamps):
                too_old = at == 0 and len(known.stamps) >= capacity
                if known.stamps[at] == stamp_ns or too_old:
                    return False
            known.insert(at, Sample(stamp_ns, value))
            # One older than the span: it is what holds at the span's beginning.
            needed = len(known.stamps) - bisect_right(
                known.stamps, known.stamps[-1] - self._span_ns
            )
            known.delete(slice(0, -max(capacity, needed + 1)))
            return True

    def newest_ns(self, stream: str) -> int | None:
        """Stamp of the newest sample, or None when there is none."""
        with self._lock:
            stamps = self._streams.get(stream, _NOTHING).stamps
            return stamps[-1] if stamps else None

    def horizon_ns(self, streams: Iterable[str]) -> int | None:
        """The latest instant that every one of `streams` has reached; None where one has nothing.

        Aligning there and nowhere later makes live and recorded observations equal: a sample
        that arrives afterwards is newer in its stream and cannot change the answer.
        """
        with self._lock:
            stamps = [self._streams.get(stream, _NOTHING).stamps for stream in streams]
            return min(each[-1] for each in stamps) if all(stamps) else None

    def hold(self, stream: str, *, at_ns: int) -> Sample | None:
        """The newest sample that is not newer than `at_ns`, or None."""
        with self._lock:
            known = self._streams.get(stream, _NOTHING)
            at = bisect_right(known.stamps, at_ns)
            return known.samples[at - 1] if at else None

    def around(self, stream: str, *, at_ns: int) -> tuple[Sample | None, Sample | None]:
        """The newest sample that is not newer, and the oldest that is not older than `at_ns`.

        Both are one where a sample is of that very instant.
        """
        with self._lock:
            known = self._streams.get(stream, _NOTHING)
            at = bisect_right(known.stamps, at_ns)
            before = known.samples[at - 1] if at else None
            if before is not None and before.stamp_ns == at_ns:
                return before, before
            return before, known.samples[at] if at < len(known.samples) else None

    def replace(self, stream: str, *, stamp_ns: int, value: Any) -> None:
        """Give the sample of that stamp another value; nothing happens where there is none."""
        with self._lock:
            known = self._streams.get(stream, _NOTHING)
            at = known.find(stamp_ns)
            if at is not None:
                known.samples[at] = Sample(stamp_ns, value)

    def remove(self, stream: str, *, stamp_ns: int) -> None:
        """Forget the sample of that stamp, as if it had never come."""
        with self._lock:
            known = self._streams.get(stream, _NOTHING)
            at = known.find(stamp_ns)
            if at is not None:
                known.delete(slice(at, at + 1))

    def clear(self) -> None:
        """Forget everything, for a new goal that must see fresh frames."""
        with self._lock:
            self._streams.clear()

    def _history(self, stream: str) -> _History:
        if stream not in self._streams:
            self._streams[stream] = _History()
        return self._streams[stream]
