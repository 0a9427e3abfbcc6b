"""Time-outs as points of the monotonic clock."""

from __future__ import annotations

import time


def deadline(timeout_s: float | None) -> float | None:
    """When the time is over [s, monotonic]; None, for ever, for None and negative numbers."""
    return None if timeout_s is None or timeout_s < 0 else time.monotonic() + timeout_s


def remaining(end: float | None) -> float | None:
    """What is left [s], not below 0; None means for ever."""
    return None if end is None else max(end - time.monotonic(), 0.0)
