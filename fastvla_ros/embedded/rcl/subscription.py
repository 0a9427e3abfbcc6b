"""Subscriptions."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.dds_profile import queue_depth
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.event_handler import SubscriptionEventCallbacks
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.qos_events import READER_EVENTS
from fastvla_ros.embedded.rcl.topic_entity import TopicEntity
from fastvla_ros.embedded.rcl.unreadable import read_or_tell
from fastvla_ros.embedded.wire.entities import Sample
from fastvla_ros.embedded.wire.messages import Message
from fastvla_ros.embedded.wire.statuses import Status

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)


class Subscription(TopicEntity[M], Entity):
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
        Entity.__init__(self, node, callback_group)
        self.callback = callback
        self.raw = raw
        self._queue: deque[tuple[Sample, int]] = deque(maxlen=queue_depth(qos_profile))
        self._open(
            node,
            node.context.participant.topic_reader,
            READER_EVENTS,
            msg_type=msg_type,
            topic=topic,
            qos_profile=qos_profile,
            event_callbacks=event_callbacks or SubscriptionEventCallbacks(),
            callback_group=callback_group,
        )

    @property
    def callback(self) -> Callable[..., Any]:
        """What gets the message, and its info too if it takes two arguments."""
        return self._callback

    @callback.setter
    def callback(self, value: Callable[..., Any]) -> None:
        self._with_info = takes_two_arguments(value)
        self._callback = value

    def get_publisher_count(self) -> int:
        """How many publishers match."""
        return len(self._entity.peers())

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
        self._leave()
        self._queue.clear()

    def _deliver(self, sample: Sample, received_ns: int) -> Any:
        message: Any = bytes(sample.data) if self.raw else self._read(sample.data)
        if message is None:
            return None
        if not self._with_info:
            return self._callback(message)
        info = {"source_timestamp": sample.source_stamp_ns, "received_timestamp": received_ns}
        return self._callback(message, info)

    def _read(self, data: memoryview) -> M | None:
        return read_or_tell(data, self.msg_type, owner=self._owner, where=self.topic_name)

    def _on_status(self, status: int) -> None:
        if status & Status.DATA_AVAILABLE:
            samples = self._entity.take()
            received_ns = time.time_ns()
            self._queue.extend((sample, received_ns) for sample in samples)
            self.wake()
        super()._on_status(status)

    def _incompatible_peer(self, topic: str) -> str:
        return (
            f"New publisher discovered on topic '{topic}', offering incompatible QoS. "
            "No messages will be received from it."
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
