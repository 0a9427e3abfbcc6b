"""A status in plain data, and the node's part that publishes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PERIOD_S = 1.0

Level = Literal["OK", "WARN", "ERROR", "STALE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One line of `rqt_robot_monitor`.

    Attributes:
        name: What of the node it is about; the node's name comes before it.
        level: OK; WARN: it works, and somebody should look; ERROR: it does not work; STALE:
            nothing is known yet, or any more.
        message: What somebody who is woken by it must know.
        values: Numbers and words; units in the keys.
    """

    name: str
    level: Level
    message: str
    values: Mapping[str, str | float | int] = field(default_factory=dict)


class DiagnosticsPublisher:
    """Publishes a node's statuses on `/diagnostics`, once a second of real time.

    Args:
        hardware_id: The robot they are about.
        collect: Gives the present statuses; none means that nothing is said this time.
    """

    def __init__(
        self, node: Any, *, hardware_id: str, collect: Callable[[], Iterable[Status]]
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from rclpy.clock import Clock, ClockType

        self._node, self._hardware_id, self._collect = node, hardware_id, collect
        self._lock, self._closed = threading.Lock(), False
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(
            PERIOD_S,
            self.publish,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def publish(self) -> None:
        """Say how it stands now."""
        with self._lock:
            statuses = [] if self._closed else list(self._collect())
            if statuses:
                message = to_message(self._node, statuses, hardware_id=self._hardware_id)
                self._publisher.publish(message)

    def close(self) -> None:
        """Leave the topic."""
        with self._lock:
            self._closed = True
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)


def to_message(node: Any, statuses: Iterable[Status], *, hardware_id: str) -> Any:
    """A `DiagnosticArray` of a node's statuses, stamped now."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    message = DiagnosticArray()
    message.header.stamp = node.get_clock().now().to_msg()
    owner = node.get_fully_qualified_name().lstrip("/")
    message.status = [
        DiagnosticStatus(
            level=getattr(DiagnosticStatus, status.level),
            name=f"{owner}: {status.name}",
            message=status.message,
            hardware_id=hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in status.values.items()],
        )
        for status in statuses
    ]
    return message


def _text(value: str | float | int) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
