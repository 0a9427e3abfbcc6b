"""QoS events: what happens when two endpoints cannot talk to each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.qos import QoSPolicyKind

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


@dataclass(frozen=True)
class QoSIncompatibleInfo:
    """How many peers were incompatible, and the policy of the last one."""

    total_count: int
    total_count_change: int
    last_policy_kind: QoSPolicyKind


QoSRequestedIncompatibleQoSInfo = QoSIncompatibleInfo
QoSOfferedIncompatibleQoSInfo = QoSIncompatibleInfo


@dataclass
class SubscriptionEventCallbacks:
    """Callbacks of a subscription; without `incompatible_qos` a warning is logged."""

    deadline: Callable[[Any], Any] | None = None
    incompatible_qos: Callable[[QoSIncompatibleInfo], Any] | None = None
    liveliness: Callable[[Any], Any] | None = None
    message_lost: Callable[[Any], Any] | None = None
    incompatible_type: Callable[[Any], Any] | None = None
    matched: Callable[[Any], Any] | None = None
    use_default_callbacks: bool = True


@dataclass
class PublisherEventCallbacks:
    """Callbacks of a publisher; without `incompatible_qos` a warning is logged."""

    deadline: Callable[[Any], Any] | None = None
    incompatible_qos: Callable[[QoSIncompatibleInfo], Any] | None = None
    liveliness: Callable[[Any], Any] | None = None
    incompatible_type: Callable[[Any], Any] | None = None
    matched: Callable[[Any], Any] | None = None
    use_default_callbacks: bool = True


class EventHandler(Entity):
    """Brings events from the wait thread into the executor."""

    def __init__(
        self, node: Node, callback_group: CallbackGroup, callback: Callable[[Any], Any]
    ) -> None:
        super().__init__(node, callback_group)
        self._callback = callback
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
        return lambda: self._callback(event)
