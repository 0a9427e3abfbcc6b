"""Rings an alarm when a signal comes.

Python runs signal handlers in the main thread, between two of its steps. A wait in C is one step,
and CycloneDDS goes on waiting when a signal interrupts it.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import cache

from fastvla_core.alarm import Alarm


class SignalRelay:
    """One per process; a thread of its own reads what Python writes at each signal."""

    def __init__(self) -> None:
        self._alarm: Alarm | None = None
        inbox, self._outbox = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._outbox, False)
        threading.Thread(target=self._run, args=(inbox,), name="signals", daemon=True).start()

    def watch(self, alarm: Alarm) -> bool:
        """Ring `alarm` when a signal comes; only the main thread may ask for it.

        Returns:
            False, and nothing is watched, if the program has such a pipe of its own (as asyncio).
        """
        self._alarm = alarm
        before = signal.set_wakeup_fd(self._outbox, warn_on_full_buffer=False)
        if before in (-1, self._outbox):
            return True
        self._alarm = None
        signal.set_wakeup_fd(before)
        return False

    def _run(self, inbox: int) -> None:
        while os.read(inbox, 64):
            alarm = self._alarm
            if alarm is not None:
                alarm.ring()


@cache
def signal_relay() -> SignalRelay:
    """The process's relay."""
    return SignalRelay()
