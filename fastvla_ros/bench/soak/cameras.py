"""Stands between the cameras and their readers: passes pictures on, drops them, holds them back."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

_FLUSH_S = 0.01
SOURCE_SUFFIX = "_of_the_robot"


def remappings(topics: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Those of the robot, so that its pictures come here and no further."""
    return tuple((topic, topic + SOURCE_SUFFIX) for topic in topics)


class CameraRelay:
    """One camera's pictures, as bytes; `drop` and `delay` last until `pass_on`.

    Args:
        max_age_s: What the contract allows.
    """

    def __init__(self, node: Any, topic: str, *, max_age_s: float) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from rclpy.clock import Clock, ClockType
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        self._lock = threading.Lock()
        self._max_age_s = max_age_s
        self._last_s, self._late_s = time.monotonic(), 0.0
        self._dropping = False
        self._delay_s: Callable[[], float] | None = None
        self._held: list[tuple[float, int, bytes]] = []
        self._numbers = itertools.count()
        group = MutuallyExclusiveCallbackGroup()
        self._publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
        node.create_subscription(
            Image, topic + SOURCE_SUFFIX, self._take, qos_profile_sensor_data, raw=True,
            callback_group=group,
        )  # fmt: skip
        node.create_timer(
            _FLUSH_S, self._flush, callback_group=group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )  # fmt: skip

    def take_late_s(self) -> float:
        """For how long the robot's own pictures were too old, since the last call [s].

        A robot that gets no processor sends none, and whoever needs them is right to complain.
        """
        with self._lock:
            self._note_arrival(arrived=False)
            late_s, self._late_s = self._late_s, 0.0
        return late_s

    def drop(self) -> None:
        """Let no picture through."""
        with self._lock:
            self._dropping = True

    def delay(self, delay_s: float, *, jitter_s: float = 0.0, seed: int = 0) -> None:
        """Hold each picture back for so long, and up to `jitter_s` more."""
        chance = random.Random(seed)
        with self._lock:
            self._delay_s = lambda: delay_s + chance.uniform(0.0, jitter_s)

    def pass_on(self) -> None:
        """Let everything through from now on; what was held back is lost."""
        with self._lock:
            self._dropping, self._delay_s = False, None
            self._held.clear()

    def _take(self, data: bytes) -> None:
        with self._lock:
            self._note_arrival(arrived=True)
            if self._dropping:
                return
            if self._delay_s is not None:
                due_s = time.monotonic() + self._delay_s()
                heapq.heappush(self._held, (due_s, next(self._numbers), data))
                return
        self._publisher.publish(data)

    def _note_arrival(self, *, arrived: bool) -> None:
        now_s = time.monotonic()
        gap_s = now_s - self._last_s
        if gap_s > self._max_age_s:
            self._late_s += gap_s - self._max_age_s
            self._last_s = now_s - self._max_age_s
        if arrived:
            self._last_s = now_s

    def _flush(self) -> None:
        due = []
        with self._lock:
            while self._held and self._held[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._held)[2])
        for data in due:
            self._publisher.publish(data)
