"""What clients and servers of services share: a type, a name, peers, and a queue of samples."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.dds_profile import queue_depth
from fastvla_ros.embedded.rcl.entity import Entity, Work
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.service_peers import ServicePeers
from fastvla_ros.embedded.wire.entities import Sample

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class ServiceEntity(Entity):
    """Base of clients and servers; `_deliver` gets each sample in the executor."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        qos_profile: QoSProfile,
        *,
        callback_group: CallbackGroup,
        is_server: bool,
    ) -> None:
        super().__init__(node, callback_group)
        self.srv_type = srv_type
        self.srv_name = srv_name
        self.qos_profile = qos_profile
        self._owner = node
        self._queue: deque[Sample] = deque(maxlen=queue_depth(qos_profile))
        self._peers = ServicePeers(
            node, srv_type, srv_name, qos_profile, is_server=is_server, on_sample=self._enqueue
        )
        self.event_handlers = [self._peers.report]

    @property
    def service_name(self) -> str:
        """The fully qualified name."""
        return self.srv_name

    def ready(self) -> bool:
        return bool(self._queue)

    def take(self) -> Work | None:
        try:
            sample = self._queue.popleft()
        except IndexError:
            return None
        return lambda: self._deliver(sample)

    def destroy(self) -> None:
        """Leave the graph and drop what was not delivered."""
        self._peers.close()
        self._queue.clear()

    def _enqueue(self, sample: Sample) -> None:
        """Runs in the thread that waits for the wire."""
        self._queue.append(sample)
        self.wake()

    def _deliver(self, sample: Sample) -> Any:
        raise NotImplementedError
