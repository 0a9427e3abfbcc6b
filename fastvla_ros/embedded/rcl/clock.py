"""Clocks: the system's, the monotonic one, and ROS time that follows /clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from fastvla_ros.embedded.rcl.clock_type import ClockType
from fastvla_ros.embedded.rcl.context import Context
from fastvla_ros.embedded.rcl.duration import Duration
from fastvla_ros.embedded.rcl.exceptions import NotInitializedException
from fastvla_ros.embedded.rcl.time import Time
from fastvla_ros.embedded.rcl.utilities import get_default_context

__all__ = [
    "Clock",
    "ClockChange",
    "ClockType",
    "JumpHandle",
    "JumpThreshold",
    "ROSClock",
    "TimeJump",
]


class ClockChange(IntEnum):
    """What happened to the source of ROS time, numbered as in rcl."""

    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


@dataclass(frozen=True)
class JumpThreshold:
    """Which jumps a callback wants to hear of; `min_backward` is negative."""

    min_forward: Duration | None
    min_backward: Duration | None
    on_clock_change: bool = True

    def __post_init__(self) -> None:
        if self.min_forward is not None and self.min_forward.nanoseconds <= 0:
            raise ValueError("min_forward must be a positive non-zero duration")
        if self.min_backward is not None and self.min_backward.nanoseconds >= 0:
            raise ValueError("min_backward must be a negative non-zero duration")
        if not (self.min_forward or self.min_backward or self.on_clock_change):
            raise ValueError("At least one jump threshold must be enabled")


@dataclass(frozen=True)
class TimeJump:
    """A jump that happened."""

    clock_change: ClockChange
    delta: Duration


class JumpHandle:
    """A registered pair of callbacks; `unregister` ends them."""

    def __init__(
        self,
        clock: Clock,
        threshold: JumpThreshold,
        pre_callback: Callable[[], Any] | None,
        post_callback: Callable[[TimeJump], Any] | None,
    ) -> None:
        self._clock = clock
        self.threshold = threshold
        self.pre_callback = pre_callback
        self.post_callback = post_callback

    def unregister(self) -> None:
        """Stop being called; a second call does nothing."""
        self._clock._forget(self)

    def wants(self, jump: TimeJump) -> bool:
        """Whether the threshold covers this jump."""
        changed = jump.clock_change in (
            ClockChange.ROS_TIME_ACTIVATED,
            ClockChange.ROS_TIME_DEACTIVATED,
        )
        if changed:
            return self.threshold.on_clock_change
        forward, backward = self.threshold.min_forward, self.threshold.min_backward
        too_far = forward is not None and jump.delta >= forward
        return too_far or (backward is not None and jump.delta <= backward)


class Clock:
    """Reads one kind of time."""

    def __new__(cls, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> Any:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        wanted: Any = ROSClock if clock_type is ClockType.ROS_TIME else cls
        return super().__new__(wanted)

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        self._clock_type = clock_type
        self._handles: list[JumpHandle] = []
        self._moved = threading.Condition()

    @property
    def clock_type(self) -> ClockType:
        """The kind of this clock."""
        return self._clock_type

    def now(self) -> Time:
        """The present time of this clock."""
        return Time(nanoseconds=self._now_ns(), clock_type=self._clock_type)

    def _now_ns(self) -> int:
        if self._clock_type is ClockType.STEADY_TIME:
            return time.monotonic_ns()
        return time.time_ns()

    @property
    def _wall_timed(self) -> bool:
        """Whether time passes by itself, so that waiting for it makes sense."""
        return True

    def create_jump_callback(
        self,
        threshold: JumpThreshold,
        *,
        pre_callback: Callable[[], Any] | None = None,
        post_callback: Callable[[TimeJump], Any] | None = None,
    ) -> JumpHandle:
        """Be told before and after jumps of at least the threshold."""
        if pre_callback is None and post_callback is None:
            raise ValueError("One of pre_callback or post_callback must be callable")
        handle = JumpHandle(self, threshold, pre_callback, post_callback)
        self._handles.append(handle)
        return handle

    def _forget(self, handle: JumpHandle) -> None:
        if handle in self._handles:
            self._handles.remove(handle)

    def sleep_until(self, until: Time, context: Context | None = None) -> bool:
        """Sleep until this clock reaches `until`; False when shutdown or a time jump ends it."""
        context = context if context is not None else get_default_context()
        if not context.ok():
            raise NotInitializedException()
        if until.clock_type != self._clock_type:
            raise ValueError("until's clock type does not match this clock's type")
        context.add_waker(self._notify)
        wall_timed = self._wall_timed
        try:
            with self._moved:
                while context.ok() and self._wall_timed == wall_timed:
                    remaining = until.nanoseconds - self._now_ns()
                    if remaining <= 0:
                        return True
                    self._moved.wait(remaining / 1e9 if wall_timed else None)
                return False
        finally:
            context.remove_waker(self._notify)

    def sleep_for(self, rel_time: Duration, context: Context | None = None) -> bool:
        """Sleep for a span of this clock's time."""
        return self.sleep_until(self.now() + rel_time, context)

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()


class ROSClock(Clock):
    """System time, or what `set_ros_time_override` last said while the override is active."""

    def __init__(self, *, clock_type: ClockType = ClockType.ROS_TIME) -> None:
        super().__init__(clock_type=clock_type)
        self._override_ns: int | None = None
        self._last_override_ns = 0

    @property
    def ros_time_is_active(self) -> bool:
        """Whether this clock follows an override."""
        return self._override_ns is not None

    @property
    def _wall_timed(self) -> bool:
        return self._override_ns is None

    def _now_ns(self) -> int:
        override = self._override_ns
        return super()._now_ns() if override is None else override

    def _set_ros_time_is_active(self, enabled: bool) -> None:
        if enabled == self.ros_time_is_active:
            return
        change = ClockChange.ROS_TIME_ACTIVATED if enabled else ClockChange.ROS_TIME_DEACTIVATED
        self._move(self._last_override_ns if enabled else None, change)

    def set_ros_time_override(self, at: Time) -> None:
        """Set the time that is given while the override is active."""
        self._last_override_ns = at.nanoseconds
        if self.ros_time_is_active:
            self._move(at.nanoseconds, ClockChange.ROS_TIME_NO_CHANGE)

    def _move(self, override_ns: int | None, change: ClockChange) -> None:
        before = self._now_ns()
        after = time.time_ns() if override_ns is None else override_ns
        jump = TimeJump(change, Duration(nanoseconds=after - before))
        called = [handle for handle in list(self._handles) if handle.wants(jump)]
        for handle in called:
            if handle.pre_callback is not None:
                handle.pre_callback()
        self._override_ns = override_ns
        self._notify()
        for handle in called:
            if handle.post_callback is not None:
                handle.post_callback(jump)
