"""Service clients."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.service_entity import ServiceEntity
from fastvla_ros.embedded.rcl.service_peers import BODY_START, IDENTITY
from fastvla_ros.embedded.rcl.task import Future, Wakeup
from fastvla_ros.embedded.rcl.unreadable import read_or_tell
from fastvla_ros.embedded.wire.entities import Sample

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class Client(ServiceEntity):
    """Sends requests to a service and hands out futures for the replies."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        qos_profile: QoSProfile,
        *,
        callback_group: CallbackGroup,
    ) -> None:
        """Use `Node.create_client`; `srv_name` is fully qualified here."""
        self.context = node.context
        self._lock = threading.Lock()
        self._sequence = itertools.count(1)
        self._pending: dict[int, Future[Any]] = {}
        super().__init__(
            node, srv_type, srv_name, qos_profile, callback_group=callback_group, is_server=False
        )

    def call_async(self, request: Any) -> Future[Any]:
        """Send a request; the future ends with the response while the node spins.

        Raises:
            TypeError: not a request of this service.
            RCLError: the context was shut down.
            InvalidHandle: the client was destroyed.
        """
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(f"Expected {self.srv_type.Request}, got {type(request)}")
        future: Future[Any] = Future(executor=self._owner.executor)
        with self._lock:
            sequence = next(self._sequence)
            self._pending[sequence] = future
        try:
            self._peers.send(request, IDENTITY.pack(self._peers.writer_handle, sequence))
        except BaseException:
            self._pending.pop(sequence, None)
            raise
        return future

    def call(self, request: Any, timeout_sec: float | None = None) -> Any:
        """Send a request and wait for the response; another thread must spin the node.

        Returns:
            The response, or None when there was none in time (as in Jazzy).
        """
        done = threading.Event()
        future = self.call_async(request)
        future.add_done_callback(Wakeup(done.set))
        if not done.wait(timeout_sec):
            self.remove_pending_request(future)
        return future.result()

    def remove_pending_request(self, future: Future[Any]) -> None:
        """Do not care for the response any more."""
        with self._lock:
            kept = {n: other for n, other in self._pending.items() if other is not future}
            self._pending = kept

    def service_is_ready(self) -> bool:
        """Whether a server of the service is there."""
        return self._peers.server_is_ready()

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Wait for a server; False when the time is over or the context ends."""
        return self._peers.wait_for_server(timeout_sec)

    def _deliver(self, sample: Sample) -> None:
        _, sequence = IDENTITY.unpack_from(sample.data, BODY_START)
        if sequence not in self._pending:
            return
        response = read_or_tell(
            sample.data, self.srv_type.Response, owner=self._owner, where=self.srv_name,
            skip=IDENTITY.size,
        )  # fmt: skip
        # The answer may still come, from a server that speaks this type.
        if response is None:
            return
        with self._lock:
            future = self._pending.pop(sequence, None)
        if future is not None:
            future._set_executor(self._owner.executor)
            future.set_result(response)
