"""Spans of time in integer nanoseconds."""

from __future__ import annotations

from functools import total_ordering
from typing import Any

from builtin_interfaces.msg import Duration as DurationMsg

from fastvla_ros.embedded.rcl.constants import S_TO_NS

MAX_NS = 2**63 - 1


@total_ordering
class Duration:
    """A span of time; may be negative."""

    def __init__(self, *, seconds: float = 0, nanoseconds: float = 0) -> None:
        total = int(seconds * S_TO_NS) + int(nanoseconds)
        if not -MAX_NS - 1 <= total <= MAX_NS:
            raise OverflowError("Total nanoseconds value is too large to store in C duration.")
        self._nanoseconds = total

    @property
    def nanoseconds(self) -> int:
        """The whole span in nanoseconds."""
        return self._nanoseconds

    def to_msg(self) -> DurationMsg:
        """As builtin_interfaces/Duration; nanoseconds are never negative there."""
        seconds, nanoseconds = divmod(self._nanoseconds, S_TO_NS)
        return DurationMsg(sec=seconds, nanosec=nanoseconds)

    @classmethod
    def from_msg(cls, msg: DurationMsg) -> Duration:
        """From builtin_interfaces/Duration."""
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Duration):
            return NotImplemented
        return self._nanoseconds == other._nanoseconds

    def __lt__(self, other: Any) -> bool:
        if not isinstance(other, Duration):
            return NotImplemented
        return self._nanoseconds < other._nanoseconds

    def __hash__(self) -> int:
        return hash(self._nanoseconds)

    def __repr__(self) -> str:
        return f"Duration(nanoseconds={self._nanoseconds})"

    def __str__(self) -> str:
        return "Infinite" if self._nanoseconds == MAX_NS else f"{self._nanoseconds} nanoseconds"


Infinite = Duration(nanoseconds=MAX_NS)
