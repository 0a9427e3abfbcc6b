"""What a signal's handler may set."""

from __future__ import annotations

from fastvla_core.alarm import Alarm


class SignalFlag:
    """Like `threading.Event`, for one thread that waits, and safe in a signal's handler.

    A second signal may interrupt the handler of the first. An event's `set` would then wait for
    the lock that it holds itself, and the process would never end.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._alarm = Alarm()

    def set(self) -> None:
        """End the wait; waits for nothing itself."""
        self._is_set = True
        self._alarm.ring()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, or the time [s] is over; whether it is set."""
        if not self._is_set:
            self._alarm.wait(timeout_s)
        return self._is_set
