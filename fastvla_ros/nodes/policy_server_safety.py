"""Why nothing may move: the server's own latched stop, and what the guard tells."""

from __future__ import annotations

import time
from typing import Any

_GUARD_TIMEOUT_NS = 3_000_000_000


class SafetyWatch:
    """Keeps the emergency stop until it is reset, and the guard's latest status."""

    def __init__(self) -> None:
        self._stopped = ""
        self._guard: Any = None
        self._guard_seen_ns = self._limited_before = 0

    @property
    def reason(self) -> str:
        """Why nothing may move; "" when it may."""
        if self._guard is not None and self._guard.latched:
            return self._stopped or f"the guard stopped: {self._guard.reason}"
        return self._stopped

    def stop(self, reason: str) -> None:
        """Latch the server's own stop."""
        self._stopped = reason

    def release(self) -> None:
        """Release the server's own stop; the guard keeps its own."""
        self._stopped = ""

    def on_guard(self, status: Any) -> None:
        """Take a `GuardStatus`."""
        self._guard, self._guard_seen_ns = status, time.monotonic_ns()

    @property
    def guard_lost(self) -> bool:
        """Whether a guard was there and has gone silent."""
        silent_ns = time.monotonic_ns() - self._guard_seen_ns
        return self._guard is not None and silent_ns > _GUARD_TIMEOUT_NS

    def start_counting(self) -> None:
        """Count limited commands from here on."""
        self._limited_before = self._guard.commands_limited if self._guard else 0

    @property
    def limited(self) -> int:
        """Commands that the guard has limited since `start_counting`."""
        # A guard that was restarted counts from 0 again.
        return max(0, self._guard.commands_limited - self._limited_before) if self._guard else 0
