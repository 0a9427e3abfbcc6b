"""Publishers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cyclonedds.core import DDSStatus

from fastvla_ros.embedded.rcl._rclpy_pybind11 import InvalidHandle, RCLError
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.dds_profile import POLICY_KINDS, dds_qos
from fastvla_ros.embedded.rcl.duration import Duration
from fastvla_ros.embedded.rcl.endpoint import Endpoint
from fastvla_ros.embedded.rcl.event_handler import (
    EventHandler,
    PublisherEventCallbacks,
    QoSIncompatibleInfo,
)
from fastvla_ros.embedded.rcl.qos import QoSPolicyKind, QoSProfile
from fastvla_ros.embedded.wire import names, rawio
from fastvla_ros.embedded.wire.messages import Message, serialize

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)


class Publisher(Generic[M]):
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
        self.msg_type = msg_type
        self.topic_name = topic
        self.qos_profile = qos_profile
        self._node = node
        callbacks = event_callbacks or PublisherEventCallbacks()
        self.event_handlers: list[EventHandler] = []
        self._incompatible: EventHandler | None = None
        if callbacks.incompatible_qos or callbacks.use_default_callbacks:
            callback = callbacks.incompatible_qos or self._report_incompatible
            self._incompatible = EventHandler(node, callback_group, callback)
            self.event_handlers.append(self._incompatible)
        participant = node.context.participant
        name = msg_type._definition.name
        qos = dds_qos(qos_profile, participant.type_user_data(name))
        self._writer = participant.topic_writer(names.topic_to_dds(topic), name, qos)
        self._endpoint = Endpoint(node, self._writer, self._on_status)

    @property
    def topic(self) -> str:
        """The fully qualified topic."""
        return self.topic_name

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
        if not self._node.context.ok():
            raise RCLError("Failed to publish: publisher's context is invalid")
        rawio.write(self._writer, buffer)

    def get_subscription_count(self) -> int:
        """How many subscriptions match."""
        return len(self._writer.get_matched_subscriptions())

    def wait_for_all_acked(self, timeout: Duration = Duration(seconds=-1)) -> bool:  # noqa: B008
        """Wait until every reliable subscription has everything; False when time is over."""
        forever = timeout.nanoseconds < 0
        return self._writer.wait_for_acks(rawio.INFINITE if forever else timeout.nanoseconds)

    def assert_liveliness(self) -> None:
        """Publishing asserts it; CycloneDDS does the rest for AUTOMATIC."""

    def destroy(self) -> None:
        """Leave the topic."""
        self._endpoint.close()

    def _on_status(self, status: int) -> None:
        if status & DDSStatus.OfferedIncompatibleQos and self._incompatible is not None:
            detail = self._writer.get_offered_incompatible_qos_status()
            self._incompatible.push(incompatible_info(detail))

    def _report_incompatible(self, info: QoSIncompatibleInfo) -> None:
        self._node.get_logger().warning(
            f"New subscription discovered on topic '{self.topic_name}', requesting incompatible "
            f"QoS. No messages will be sent to it. "
            f"Last incompatible policy: {info.last_policy_kind.name}"
        )


def incompatible_info(detail: Any) -> QoSIncompatibleInfo:
    """DDS's status as rclpy shows it."""
    kind = POLICY_KINDS.get(detail.last_policy_id, QoSPolicyKind.INVALID)
    return QoSIncompatibleInfo(detail.total_count, detail.total_count_change, kind)
