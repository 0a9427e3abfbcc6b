"""Points in time in integer nanoseconds, each bound to a kind of clock."""

from __future__ import annotations

from functools import total_ordering
from typing import Any, overload

from builtin_interfaces.msg import Time as TimeMsg

from fastvla_ros.embedded.rcl.clock_type import ClockType
from fastvla_ros.embedded.rcl.constants import S_TO_NS
from fastvla_ros.embedded.rcl.duration import MAX_NS, Duration


@total_ordering
class Time:
    """A point in time; comparing or subtracting across kinds of clock raises TypeError."""

    def __init__(
        self,
        *,
        seconds: float = 0,
        nanoseconds: float = 0,
        clock_type: ClockType = ClockType.SYSTEM_TIME,
    ) -> None:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        if seconds < 0 or nanoseconds < 0:
            raise ValueError("Seconds and nanoseconds must not be negative")
        total = int(seconds * S_TO_NS) + int(nanoseconds)
        if total > MAX_NS:
            raise OverflowError("Total nanoseconds value is too large to store in C time point.")
        self._nanoseconds = total
        self._clock_type = clock_type

    @property
    def nanoseconds(self) -> int:
        """Nanoseconds since the clock's zero."""
        return self._nanoseconds

    @property
    def clock_type(self) -> ClockType:
        """The kind of clock that gave this time."""
        return self._clock_type

    def seconds_nanoseconds(self) -> tuple[int, int]:
        """Whole seconds and the rest in nanoseconds."""
        return divmod(self._nanoseconds, S_TO_NS)

    def to_msg(self) -> TimeMsg:
        """As builtin_interfaces/Time."""
        seconds, nanoseconds = self.seconds_nanoseconds()
        return TimeMsg(sec=seconds, nanosec=nanoseconds)

    @classmethod
    def from_msg(cls, msg: TimeMsg, clock_type: ClockType = ClockType.ROS_TIME) -> Time:
        """From builtin_interfaces/Time, which does not say its clock."""
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec, clock_type=clock_type)

    def _other(self, other: Time) -> int:
        if self._clock_type != other._clock_type:
            raise TypeError("Can't compare times with different clock types")
        return other._nanoseconds

    def __add__(self, other: Any) -> Time:
        if not isinstance(other, Duration):
            return NotImplemented
        total = self._nanoseconds + other.nanoseconds
        return Time(nanoseconds=total, clock_type=self._clock_type)

    __radd__ = __add__

    @overload
    def __sub__(self, other: Time) -> Duration: ...
    @overload
    def __sub__(self, other: Duration) -> Time: ...
    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Time):
            return Duration(nanoseconds=self._nanoseconds - self._other(other))
        if isinstance(other, Duration):
            total = self._nanoseconds - other.nanoseconds
            return Time(nanoseconds=total, clock_type=self._clock_type)
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Time):
            return NotImplemented
        return self._nanoseconds == self._other(other)

    def __lt__(self, other: Any) -> bool:
        if not isinstance(other, Time):
            return NotImplemented
        return self._nanoseconds < self._other(other)

    def __hash__(self) -> int:
        return hash((self._nanoseconds, self._clock_type))

    def __repr__(self) -> str:
        return f"Time(nanoseconds={self._nanoseconds}, clock_type={self._clock_type.name})"
