"""QoS events: what the wire says about the peers of a publisher or a subscription."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl import _rclpy_pybind11 as _rclpy
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.qos import QoSPolicyKind

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

UnsupportedEventTypeError = _rclpy.UnsupportedEventTypeError


@dataclass(frozen=True)
class QoSIncompatibleInfo:
    """How many peers were incompatible, and the policy of the last one."""

    total_count: int
    total_count_change: int
    last_policy_kind: QoSPolicyKind


@dataclass(frozen=True)
class QoSCountInfo:
    """How often it has happened: a missed deadline, a lost message, a lost liveliness."""

    total_count: int
    total_count_change: int


@dataclass(frozen=True)
class QoSMatchedInfo:
    """How many peers have matched so far, and how many do now."""

    total_count: int
    total_count_change: int
    current_count: int
    current_count_change: int


@dataclass(frozen=True)
class QoSLivelinessChangedInfo:
    """How many publishers are alive."""

    alive_count: int
    not_alive_count: int
    alive_count_change: int
    not_alive_count_change: int


QoSRequestedIncompatibleQoSInfo = QoSIncompatibleInfo
QoSOfferedIncompatibleQoSInfo = QoSIncompatibleInfo
QoSRequestedDeadlineMissedInfo = QoSCountInfo
QoSOfferedDeadlineMissedInfo = QoSCountInfo
QoSLivelinessLostInfo = QoSCountInfo
QoSMessageLostInfo = QoSCountInfo
QoSSubscriptionMatchedInfo = QoSMatchedInfo
QoSPublisherMatchedInfo = QoSMatchedInfo


@dataclass(kw_only=True)
class SubscriptionEventCallbacks:
    """Callbacks of a subscription; without `incompatible_qos` a warning is logged.

    `incompatible_type` is never called: CycloneDDS does not tell (as with rmw_cyclonedds_cpp).
    """

    deadline: Callable[[QoSCountInfo], Any] | None = None
    incompatible_qos: Callable[[QoSIncompatibleInfo], Any] | None = None
    liveliness: Callable[[QoSLivelinessChangedInfo], Any] | None = None
    message_lost: Callable[[QoSCountInfo], Any] | None = None
    incompatible_type: Callable[[Any], Any] | None = None
    matched: Callable[[QoSMatchedInfo], Any] | None = None
    use_default_callbacks: bool = True


@dataclass(kw_only=True)
class PublisherEventCallbacks:
    """Callbacks of a publisher; without `incompatible_qos` a warning is logged.

    `incompatible_type` is never called: CycloneDDS does not tell (as with rmw_cyclonedds_cpp).
    """

    deadline: Callable[[QoSCountInfo], Any] | None = None
    incompatible_qos: Callable[[QoSIncompatibleInfo], Any] | None = None
    liveliness: Callable[[QoSCountInfo], Any] | None = None
    incompatible_type: Callable[[Any], Any] | None = None
    matched: Callable[[QoSMatchedInfo], Any] | None = None
    use_default_callbacks: bool = True


class EventHandler(Entity):
    """Brings events from the wire into the executor."""

    def __init__(
        self, node: Node, callback_group: CallbackGroup, callback: Callable[[Any], Any]
    ) -> None:
        super().__init__(node, callback_group)
        self.callback = callback
        self._events: deque[Any] = deque()

    def push(self, event: Any) -> None:
        """Have the callback called with `event` while spinning."""
        self._events.append(event)
        self.wake()

    def ready(self) -> bool:
        return bool(self._events)

    def take(self) -> Work | None:
        try:
            event = self._events.popleft()
        except IndexError:
            return None
        return lambda: self.callback(event)

    def destroy(self) -> None:
        """Drop what was not delivered."""
        self._events.clear()
