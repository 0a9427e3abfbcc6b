"""Subscriptions."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cyclonedds.core import DDSStatus

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.dds_profile import dds_qos, queue_depth
from fastvla_ros.embedded.rcl.endpoint import Endpoint
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.event_handler import (
    EventHandler,
    QoSIncompatibleInfo,
    SubscriptionEventCallbacks,
)
from fastvla_ros.embedded.rcl.publisher import incompatible_info
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.wire import names, rawio
from fastvla_ros.embedded.wire.messages import Message, deserialize

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)


class Subscription(Entity, Generic[M]):
    """Receives messages of one type from one topic.

    The queue holds `depth` samples, as DDS would: the oldest gives way.
    """

    def __init__(
        self,
        node: Node,
        msg_type: type[M],
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile,
        *,
        callback_group: CallbackGroup,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        raw: bool = False,
    ) -> None:
        """Use `Node.create_subscription`; `topic` is fully qualified here."""
        super().__init__(node, callback_group)
        self.msg_type = msg_type
        self.topic_name = topic
        self.callback = callback
        self.qos_profile = qos_profile
        self.raw = raw
        self._with_info = takes_two_arguments(callback)
        self._owner = node
        self._queue: deque[tuple[rawio.Sample, int]] = deque(maxlen=queue_depth(qos_profile))
        self._incompatible: EventHandler | None = None
        self.event_handlers: list[EventHandler] = []
        callbacks = event_callbacks or SubscriptionEventCallbacks()
        if callbacks.incompatible_qos or callbacks.use_default_callbacks:
            report = callbacks.incompatible_qos or self._report_incompatible
            self._incompatible = EventHandler(node, callback_group, report)
            self.event_handlers.append(self._incompatible)
        participant = node.context.participant
        name = msg_type._definition.name
        qos = dds_qos(qos_profile, participant.type_user_data(name))
        self._reader = participant.topic_reader(names.topic_to_dds(topic), name, qos)
        self._endpoint = Endpoint(node, self._reader, self._on_status)

    @property
    def topic(self) -> str:
        """The fully qualified topic."""
        return self.topic_name

    def get_publisher_count(self) -> int:
        """How many publishers match."""
        return len(self._reader.get_matched_publications())

    def ready(self) -> bool:
        return bool(self._queue)

    def take(self) -> Work | None:
        try:
            sample, received_ns = self._queue.popleft()
        except IndexError:
            return None
        return lambda: self._deliver(sample, received_ns)

    def destroy(self) -> None:
        """Leave the topic and drop what was not delivered."""
        self._endpoint.close()
        self._queue.clear()

    def _deliver(self, sample: rawio.Sample, received_ns: int) -> Any:
        message: Any = bytes(sample.data) if self.raw else deserialize(sample.data, self.msg_type)
        if not self._with_info:
            return self.callback(message)
        info = {"source_timestamp": sample.source_stamp_ns, "received_timestamp": received_ns}
        return self.callback(message, info)

    def _on_status(self, status: int) -> None:
        if status & DDSStatus.DataAvailable:
            while samples := rawio.take(self._reader):
                received_ns = time.time_ns()
                self._queue.extend((sample, received_ns) for sample in samples)
            self.wake()
        if status & DDSStatus.RequestedIncompatibleQos and self._incompatible is not None:
            detail = self._reader.get_requested_incompatible_qos_status()
            self._incompatible.push(incompatible_info(detail))

    def _report_incompatible(self, info: QoSIncompatibleInfo) -> None:
        self._owner.get_logger().warning(
            f"New publisher discovered on topic '{self.topic_name}', offering incompatible QoS. "
            f"No messages will be received from it. "
            f"Last incompatible policy: {info.last_policy_kind.name}"
        )


def takes_two_arguments(callback: Callable[..., Any]) -> bool:
    """Whether the callback wants the message's info too.

    Raises:
        RuntimeError: it takes neither one nor two positional arguments.
    """
    signature = inspect.signature(callback)
    for count in (1, 2):
        try:
            signature.bind(*[object()] * count)
        except TypeError:
            continue
        return count == 2
    raise RuntimeError(
        "Subscription.__init__(): callback should be either be callable with one "
        "argument (to get only the message) or two (message and info)"
    )
