"""Timers on any clock, and rates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.clock import Clock, ClockChange, JumpThreshold, TimeJump
from fastvla_ros.embedded.rcl.context import weak_method
from fastvla_ros.embedded.rcl.duration import Duration
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.exceptions import ROSInterruptException

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

ANY_MOVE = JumpThreshold(Duration(nanoseconds=1), Duration(nanoseconds=-1), on_clock_change=True)


class Timer(Entity):
    """Calls back once per period of its clock; periods that were missed are left out."""

    def __init__(
        self,
        callback: Callable[[], Any],
        callback_group: CallbackGroup,
        timer_period_ns: int,
        clock: Clock,
        *,
        node: Node,
        autostart: bool = True,
    ) -> None:
        super().__init__(node, callback_group)
        if timer_period_ns < 0:
            raise ValueError("timer period must not be negative")
        self.callback = callback
        self.clock = clock
        self._period_ns = int(timer_period_ns)
        self._lock = threading.Lock()
        self._canceled = not autostart
        self._last_ns = clock.now().nanoseconds
        self._next_ns = self._last_ns + self._period_ns
        self._jumps = clock.create_jump_callback(
            ANY_MOVE, post_callback=weak_method(self._on_time_moved)
        )

    @property
    def timer_period_ns(self) -> int:
        """The period in nanoseconds."""
        return self._period_ns

    @timer_period_ns.setter
    def timer_period_ns(self, value: int) -> None:
        self._period_ns = int(value)
        self.wake()

    def wake(self) -> None:
        """Make the node's executor work out anew how long it may sleep."""
        if self._node is not None:
            self._node.wake_executor()

    def is_ready(self) -> bool:
        """Whether the callback is due."""
        return not self._canceled and self.clock.now().nanoseconds >= self._next_ns

    def is_canceled(self) -> bool:
        """Whether the timer was cancelled and not reset."""
        return self._canceled

    def cancel(self) -> None:
        """Stop calling back."""
        self._canceled = True

    def reset(self) -> None:
        """Start a whole period from now; a cancelled timer runs again."""
        with self._lock:
            self._next_ns = self.clock.now().nanoseconds + self._period_ns
            self._canceled = False
        self.wake()

    def time_since_last_call(self) -> int:
        """Nanoseconds since the last call."""
        return self.clock.now().nanoseconds - self._last_ns

    def time_until_next_call(self) -> int | None:
        """Nanoseconds until the next call, None when cancelled; negative when overdue."""
        return None if self._canceled else self._next_ns - self.clock.now().nanoseconds

    def wall_seconds_until_ready(self) -> float | None:
        """How long an executor may sleep; None when only a wake-up can make this ready."""
        remaining = self.time_until_next_call()
        if remaining is None or not self.clock._wall_timed:
            return None
        return max(remaining, 0) / 1e9

    def destroy(self) -> None:
        """Stop for good."""
        self.cancel()
        self._jumps.unregister()

    ready = is_ready

    def take(self) -> Work | None:
        with self._lock:
            now = self.clock.now().nanoseconds
            if self._canceled or now < self._next_ns:
                return None
            self._last_ns = now
            self._next_ns += self._period_ns
            if self._next_ns < now:
                missed = -(-(now - self._next_ns) // self._period_ns) if self._period_ns else 0
                self._next_ns = self._next_ns + missed * self._period_ns if missed else now
        return self.callback

    def _on_time_moved(self, jump: TimeJump) -> None:
        with self._lock:
            now = self.clock.now().nanoseconds
            changed = jump.clock_change is not ClockChange.ROS_TIME_NO_CHANGE
            if changed or now < self._last_ns:
                self._last_ns = now
                self._next_ns = now + self._period_ns
        self.wake()


class Rate:
    """Sleeps at a fixed rate; needs another thread that spins the node."""

    def __init__(self, timer: Timer, *, context: Any) -> None:
        self._timer = timer
        self._context = context
        self._ticked = threading.Condition()
        self._ticks = 0
        timer.callback = self._tick
        context.add_waker(self._notify)

    def sleep(self) -> None:
        """Wait for the next tick.

        Raises:
            ROSInterruptException: the context was shut down.
        """
        with self._ticked:
            seen = self._ticks
            while self._ticks == seen:
                if not self._context.ok() or self._timer.is_canceled():
                    raise ROSInterruptException()
                self._ticked.wait()

    def destroy(self) -> None:
        """End the rate; sleepers are interrupted."""
        self._timer.destroy()
        self._context.remove_waker(self._notify)
        self._notify()

    def _tick(self) -> None:
        self._ticks += 1
        self._notify()

    def _notify(self) -> None:
        with self._ticked:
            self._ticked.notify_all()
