"""What publishers and subscriptions share: a type, a topic, a profile, and QoS events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.dds_profile import dds_qos
from fastvla_ros.embedded.rcl.endpoint import Endpoint
from fastvla_ros.embedded.rcl.event_handler import EventHandler, QoSIncompatibleInfo
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.qos_events import EventKind
from fastvla_ros.embedded.wire import names
from fastvla_ros.embedded.wire.entities import Reader, Writer
from fastvla_ros.embedded.wire.messages import Message

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)
# Opens the DDS entity: its topic, its type and its QoS.
Opener = Callable[[str, str, Any], "Reader | Writer"]


class TopicEntity(Generic[M]):
    """Base of publishers and subscriptions."""

    def _open(
        self,
        node: Node,
        opener: Opener,
        kinds: tuple[EventKind, ...],
        *,
        msg_type: type[M],
        topic: str,
        qos_profile: QoSProfile,
        event_callbacks: Any,
        callback_group: CallbackGroup,
    ) -> None:
        """Join the topic; `opener` is the participant's method for a reader or a writer."""
        self.msg_type = msg_type
        self.topic_name = topic
        self.qos_profile = qos_profile
        self._owner = node
        self._events = [
            (kind, EventHandler(node, callback_group, callback))
            for kind in kinds
            if (callback := self._event_callback(kind, event_callbacks)) is not None
        ]
        self.event_handlers = [handler for _, handler in self._events]
        name = msg_type._definition.name
        qos = dds_qos(qos_profile, node.context.participant.type_user_data(name))
        statuses = 0
        for kind, _ in self._events:
            statuses |= kind.status
        # Complete before the endpoint is watched: a sample may come at once.
        self._entity: Any = opener(names.topic_to_dds(topic), name, qos)
        self._endpoint = Endpoint(node, self._entity, self._on_status, statuses=statuses)

    @property
    def topic(self) -> str:
        """The fully qualified topic."""
        return self.topic_name

    def _leave(self) -> None:
        self._endpoint.close()
        for handler in self.event_handlers:
            handler.destroy()

    def _on_status(self, status: int) -> None:
        """Runs in the thread that waits for the wire."""
        for kind, handler in self._events:
            if status & kind.status:
                handler.push(kind.read(self._entity))

    def _event_callback(self, kind: EventKind, event_callbacks: Any) -> Callable[[Any], Any] | None:
        callback = getattr(event_callbacks, kind.callback)
        if callback is None and kind.callback == "incompatible_qos":
            return self._warn if event_callbacks.use_default_callbacks else None
        return callback

    def _warn(self, info: QoSIncompatibleInfo) -> None:
        self._owner.get_logger().warning(
            f"{self._incompatible_peer(self.topic_name)} "
            f"Last incompatible policy: {info.last_policy_kind.name}"
        )

    def _incompatible_peer(self, topic: str) -> str:
        raise NotImplementedError
