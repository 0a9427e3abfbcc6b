"""What the kernel tells of a process: memory, threads, descriptors, time; see proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# The name of a process stands in brackets and may hold spaces; two fields come before it.
_USER, _SYSTEM = 14 - 3, 15 - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One look at a process.

    Attributes:
        rss_kib: Memory that is in RAM.
        cpu_s: Time of processors since its start.
    """

    at_s: float
    rss_kib: int
    threads: int
    descriptors: int
    cpu_s: float


def usage(pid: int, *, at_s: float) -> Usage:
    """Look at a process.

    Raises:
        OSError: there is no such process any more.
    """
    folder = _PROC / str(pid)
    numbers = {}
    for line in (folder / "status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "Threads"):
            numbers[name] = int(value.split()[0])
    fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = int(fields[_USER]) + int(fields[_SYSTEM])
    return Usage(
        at_s=at_s,
        # A process that has just ended has no memory any more.
        rss_kib=numbers.get("VmRSS", 0),
        threads=numbers["Threads"],
        descriptors=len(os.listdir(folder / "fd")),
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    lists = (_PROC / str(pid) / "task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text(encoding="utf-8").split()]


def command_line(pid: int) -> list[str]:
    """How a process was started."""
    return (_PROC / str(pid) / "cmdline").read_text(encoding="utf-8").split("\0")[:-1]
