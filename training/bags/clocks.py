"""How the clock that stamps the messages of a topic differs from the recorder's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Samples kept per topic; beyond that every second one is dropped, so that memory stays flat.
_SAMPLES = 4096
# Less than this tells nothing about a drift.
_FEWEST, _SHORTEST_S = 20, 2.0

OFFSET_LIMIT_S = 1.0
"""A header that is further from its time of receipt is of another clock."""
AHEAD_LIMIT_S = 0.005
"""A header cannot be later than its receipt, but for how well two clocks are kept together."""
DRIFT_LIMIT_S = 0.01
"""Clocks that part by more than this within a recording misplace its last messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReport:
    """Receipt minus header stamp over a recording.

    Attributes:
        offset_s: The median; the latency where both are one clock.
        drift_ppm: How much faster the recorder's clock runs, in millionths; None when the
            recording is too short to tell.
        parted_s: By how much they parted within the recording.
    """

    offset_s: float
    drift_ppm: float | None = None
    parted_s: float = 0.0

    @property
    def problem(self) -> str | None:
        """What is wrong with the clock, or None."""
        if abs(self.parted_s) > DRIFT_LIMIT_S:
            return f"drifts by {self.drift_ppm:.0f} ppm, {abs(self.parted_s):.3f} s within it"
        if self.offset_s < -AHEAD_LIMIT_S:
            return f"is {-self.offset_s:.3f} s ahead of the time of receipt"
        if self.offset_s > OFFSET_LIMIT_S:
            return f"is {self.offset_s:.3f} s behind the time of receipt"
        return None


class ClockTally:
    """Collects (receipt, header) pairs of one topic.

    Attributes:
        zero: Messages whose header has no stamp.
        backward: Messages whose header is older than one before them.
    """

    def __init__(self) -> None:
        self.zero = 0
        self.backward = 0
        self._newest_ns = 0
        self._pairs: list[tuple[int, int]] = []
        self._stride, self._seen = 1, 0

    def add(self, *, receive_ns: int, header_ns: int) -> None:
        """Take the two times of one message."""
        if not header_ns:
            self.zero += 1
            return
        self.backward += header_ns < self._newest_ns
        self._newest_ns = max(self._newest_ns, header_ns)
        if self._seen % self._stride == 0:
            self._pairs.append((receive_ns, receive_ns - header_ns))
            if len(self._pairs) >= _SAMPLES:
                del self._pairs[1::2]
                self._stride *= 2
        self._seen += 1

    def report(self) -> ClockReport | None:
        """Offset and drift, robust against single late messages; None without any stamp."""
        if not self._pairs:
            return None
        first = self._pairs[0][0]
        # Python's integers: a header of another epoch overflows a difference in int64.
        time_s = np.asarray([(at - first) / 1e9 for at, _ in self._pairs])
        late_s = np.asarray([late / 1e9 for _, late in self._pairs])
        offset_s = float(np.median(late_s))
        quarter = len(late_s) // 4
        span_s = float(np.median(time_s[-quarter:]) - np.median(time_s[:quarter])) if quarter else 0
        if len(late_s) < _FEWEST or span_s < _SHORTEST_S / 2:
            return ClockReport(offset_s=offset_s)
        ends = late_s[:quarter], late_s[-quarter:]
        moved_s = float(np.median(ends[1]) - np.median(ends[0]))
        # What a loaded machine delays some messages by is no drift.
        noise_s = max(float(np.median(abs(end - np.median(end)))) for end in ends)
        slope = moved_s / span_s
        parted_s = slope * float(time_s[-1]) if abs(moved_s) > 3 * noise_s else 0.0
        return ClockReport(offset_s=offset_s, drift_ppm=slope * 1e6, parted_s=parted_s)
