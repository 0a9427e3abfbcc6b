"""A timer that one thread sleeps on and others put off: most of the time it never fires."""

from __future__ import annotations

import ctypes as ct
import os
import time
from functools import cache

from fastvla_core.errors import RosError

NS = 1_000_000_000


class _Setting(ct.Structure):
    """struct itimerspec: how often it repeats, and when it fires first (never, if both are 0)."""

    _fields_ = [(name, ct.c_long) for name in ("every_s", "every_ns", "in_s", "in_ns")]


@cache
def _libc() -> ct.PyDLL:
    # With the GIL, as these calls wait for nothing. Python has them from 3.13 on.
    lib = ct.PyDLL(None, use_errno=True)
    lib.timerfd_create.argtypes = [ct.c_int, ct.c_int]
    lib.timerfd_settime.argtypes = [ct.c_int, ct.c_int, ct.c_void_p, ct.c_void_p]
    return lib


class OneShot:
    """A timer of the kernel (timerfd), so that to set it and to stop it wakes nobody."""

    def __init__(self, delay_ns: int) -> None:
        self._set_time = _libc().timerfd_settime
        self._file = _libc().timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._file < 0:
            raise RosError(f"no timer: {os.strerror(ct.get_errno())}")
        self._usual, self._now, self._never = (
            ct.byref(_Setting(in_s=ns // NS, in_ns=ns % NS)) for ns in (delay_ns, 1, 0)
        )

    def start(self) -> None:
        """Fire once after the delay, from now on."""
        self._set_time(self._file, 0, self._usual, None)

    def fire(self) -> None:
        """Fire at once."""
        self._set_time(self._file, 0, self._now, None)

    def stop(self) -> None:
        """Do not fire."""
        self._set_time(self._file, 0, self._never, None)

    def wait(self) -> None:
        """Wait until it fires."""
        os.read(self._file, 8)

    def close(self) -> None:
        """Give it back; nobody may wait any more."""
        file, self._file = self._file, -1
        os.close(file)
