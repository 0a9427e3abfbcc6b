"""Wakes one thread that waits."""

from __future__ import annotations

import contextlib
import threading


class Alarm:
    """Belongs to the thread that waits; any other may ring it, also before the wait.

    One lock and nothing around it: the woken thread has nothing to take but the interpreter, where
    a condition would have it queue for the lock that its waker still holds.
    """

    __slots__ = ("_quiet",)

    def __init__(self) -> None:
        self._quiet = threading.Lock()
        self._quiet.acquire()

    def ring(self) -> None:
        """End the wait, or the next one; never blocks."""
        if self._quiet.locked():
            # Another thread may ring in between.
            with contextlib.suppress(RuntimeError):
                self._quiet.release()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until it has rung since the last wait; None waits for ever."""
        if timeout_s is None:
            self._quiet.acquire()
        else:
            self._quiet.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
