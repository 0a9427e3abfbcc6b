"""Service servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.rcl.service_entity import ServiceEntity
from fastvla_ros.embedded.rcl.service_peers import BODY_START, IDENTITY
from fastvla_ros.embedded.rcl.unreadable import read_or_tell
from fastvla_ros.embedded.wire.entities import Sample

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

# How long a reply waits for discovery to match the client's reader, as in rmw_cyclonedds.
REPLY_READER_TIMEOUT_S = 0.1


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """Whose request it is: `identity` is echoed, the handle tells the client."""

    identity: bytes
    publication_handle: int


class RequestServer(ServiceEntity):
    """Takes requests and hands each to `handle`; replies may come at any later time."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        handle: Callable[[Any, RequestHeader], Any],
        qos_profile: QoSProfile,
        *,
        callback_group: CallbackGroup,
    ) -> None:
        self._handle = handle
        self._matched_clients: set[int] = set()
        super().__init__(
            node, srv_type, srv_name, qos_profile, callback_group=callback_group, is_server=True
        )

    def send_response(self, response: Any, header: RequestHeader) -> None:
        """Answer one request; nothing is sent when its client has gone.

        Raises:
            TypeError: not a response of this service.
        """
        if not isinstance(response, self.srv_type.Response):
            raise TypeError(f"Expected {self.srv_type.Response}, got {type(response)}")
        if header.publication_handle not in self._matched_clients:
            client = self._peers.client_of(header.publication_handle)
            if client is None:
                return
            if client and not self._peers.wait_for_reply_reader(client, REPLY_READER_TIMEOUT_S):
                return
            self._matched_clients.add(header.publication_handle)
        self._peers.send(response, header.identity)

    def _deliver(self, sample: Sample) -> Any:
        known = sample.publication_handle in self._matched_clients
        if not known and self._peers.client_of(sample.publication_handle) is None:
            return None
        identity = bytes(sample.data[BODY_START : BODY_START + IDENTITY.size])
        request = read_or_tell(
            sample.data, self.srv_type.Request, owner=self._owner, where=self.srv_name,
            skip=IDENTITY.size,
        )  # fmt: skip
        if request is None:
            return None
        return self._handle(request, RequestHeader(identity, sample.publication_handle))


class Service(RequestServer):
    """Calls `callback(request, response)` and sends what it returns."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        qos_profile: QoSProfile,
        *,
        callback_group: CallbackGroup,
    ) -> None:
        """Use `Node.create_service`; `srv_name` is fully qualified here."""
        super().__init__(
            node, srv_type, srv_name, self._call, qos_profile, callback_group=callback_group
        )
        self.callback = callback

    def _call(self, request: Any, header: RequestHeader) -> Any:
        response = self.callback(request, self.srv_type.Response())
        # Nearly always; the other question takes a microsecond.
        if not isinstance(response, self.srv_type.Response) and isawaitable(response):
            return self._send_later(response, header)
        self.send_response(response, header)
        return None

    async def _send_later(self, response: Awaitable[Any], header: RequestHeader) -> None:
        self.send_response(await response, header)
