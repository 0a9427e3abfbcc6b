"""Publishers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fastvla_ros.embedded.rcl._rclpy_pybind11 import InvalidHandle, RCLError
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.duration import Duration
from fastvla_ros.embedded.rcl.event_handler import PublisherEventCallbacks
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.qos_events import WRITER_EVENTS
from fastvla_ros.embedded.rcl.topic_entity import TopicEntity
from fastvla_ros.embedded.wire.libddsc import INFINITE_NS
from fastvla_ros.embedded.wire.messages import Message, serialize

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)


class Publisher(TopicEntity[M]):
    """Sends messages of one type to one topic."""

    def __init__(
        self,
        node: Node,
        msg_type: type[M],
        topic: str,
        qos_profile: QoSProfile,
        *,
        event_callbacks: PublisherEventCallbacks | None = None,
        callback_group: CallbackGroup,
    ) -> None:
        """Use `Node.create_publisher`; `topic` is fully qualified here."""
        self._open(
            node,
            node.context.participant.topic_writer,
            WRITER_EVENTS,
            msg_type=msg_type,
            topic=topic,
            qos_profile=qos_profile,
            event_callbacks=event_callbacks or PublisherEventCallbacks(),
            callback_group=callback_group,
        )
        self._context = node.context

    def publish(self, msg: M | bytes) -> None:
        """Send a message, or CDR bytes with their encapsulation header.

        Raises:
            TypeError: another type than the publisher's.
            RCLError: the context was shut down.
            InvalidHandle: the publisher was destroyed.
        """
        if isinstance(msg, self.msg_type):
            buffer = serialize(msg)
        elif isinstance(msg, bytes):
            buffer = bytearray(msg)
        else:
            raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")
        if self._endpoint.closed:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        if not self._context.ok():
            raise RCLError("Failed to publish: publisher's context is invalid")
        self._entity.write(buffer)

    def get_subscription_count(self) -> int:
        """How many subscriptions match."""
        return len(self._entity.peers())

    def wait_for_all_acked(self, timeout: Duration = Duration(seconds=-1)) -> bool:  # noqa: B008
        """Wait until every reliable subscription has everything; False when time is over."""
        forever = timeout.nanoseconds < 0
        return self._entity.wait_for_acks(INFINITE_NS if forever else timeout.nanoseconds)

    def assert_liveliness(self) -> None:
        """Say that the publisher is alive; needed with MANUAL_BY_TOPIC when nothing is sent."""
        self._entity.assert_liveliness()

    def destroy(self) -> None:
        """Leave the topic."""
        self._leave()

    def _incompatible_peer(self, topic: str) -> str:
        return (
            f"New subscription discovered on topic '{topic}', requesting incompatible QoS. "
            "No messages will be sent to it."
        )
