"""How a client and a server of a service find each other and keep their replies apart."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl._rclpy_pybind11 import InvalidHandle, RCLError
from fastvla_ros.embedded.rcl.dds_profile import dds_qos
from fastvla_ros.embedded.rcl.endpoint import Endpoint
from fastvla_ros.embedded.rcl.event_handler import EventHandler
from fastvla_ros.embedded.rcl.qos import QoSProfile
from fastvla_ros.embedded.wire import names
from fastvla_ros.embedded.wire.dds_qos import DdsQos, user_data_items
from fastvla_ros.embedded.wire.discovered import Discovered
from fastvla_ros.embedded.wire.entities import Reader, Sample, Writer
from fastvla_ros.embedded.wire.messages import Message, serialize
from fastvla_ros.embedded.wire.statuses import Status

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

# Requests and replies start with the identity of the request.
IDENTITY = struct.Struct("<Qq")
BODY_START = 4
# Other vendors put the identity elsewhere; this is CycloneDDS's GUID prefix.
VENDOR = b"\x01\x10"
# The bytes of a GUID that name the participant.
PREFIX = 12


class ServicePeers:
    """The request and reply endpoints of one client or one server."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        service: str,
        qos_profile: QoSProfile,
        *,
        is_server: bool,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self.service = service
        self._node = node
        self._context = node.context
        self._on_sample = on_sample
        self._is_server = is_server
        self._foreign: set[bytes] = set()
        self.report = EventHandler(node, node.default_callback_group, self._report_foreign)
        participant = node.context.participant
        key = "serviceid" if is_server else "clientid"
        item = f"{key}={participant.new_identity()};".encode()
        request = (names.request_topic(service), srv_type.Request._definition.name)
        reply = (names.reply_topic(service), srv_type.Response._definition.name)
        incoming, outgoing = (request, reply) if is_server else (reply, request)

        def qos(name: str) -> DdsQos:
            return dds_qos(qos_profile, item + participant.type_user_data(name))

        self._writer = participant.service_writer(*outgoing, qos(outgoing[1]))
        self._reader = participant.service_reader(*incoming, qos(incoming[1]))
        self.writer_handle = self._writer.instance_handle()
        self._endpoints = [
            Endpoint(node, self._writer, self._on_writer_status),
            Endpoint(node, self._reader, self._on_reader_status),
        ]

    def send(self, message: Message, identity: bytes) -> None:
        """Write a request or a reply.

        Raises:
            RCLError: the context was shut down.
            InvalidHandle: the client or server was destroyed.
        """
        buffer = serialize(message, header=identity)
        if self._endpoints[0].closed:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        if not self._context.ok():
            raise RCLError(f"'{self.service}': the context is invalid")
        self._writer.write(buffer)

    def server_is_ready(self) -> bool:
        """Whether a request reader and a reply writer of one server match."""
        readers = self._ids(self._writer, "serviceid")
        writers = self._ids(self._reader, "serviceid")
        return bool(readers & writers)

    def client_of(self, publication_handle: int) -> str | None:
        """The clientid behind a request; None when it is gone, "" when it has none."""
        peer = self._reader.peer(publication_handle)
        if peer is None or not self._is_ours(peer):
            return None
        return user_data_items(peer.qos.user_data).get("clientid", "")

    def wait_for_reply_reader(self, clientid: str, timeout_s: float) -> bool:
        """Wait until the client's reply reader matches, or the reply would be lost."""
        return self._context.graph.wait_until(
            lambda: clientid in self._ids(self._writer, "clientid"),
            timeout_s=timeout_s,
            ok=self._context.ok,
        )

    def wait_for_server(self, timeout_s: float | None) -> bool:
        """Wait for a server; False when the time is over or the context ends."""
        return self._context.graph.wait_until(
            self.server_is_ready, timeout_s=timeout_s, ok=self._context.ok
        )

    def close(self) -> None:
        """Leave the graph."""
        for endpoint in self._endpoints:
            endpoint.close()

    def _peers_of(self, entity: Reader | Writer) -> list[Discovered]:
        found = [entity.peer(handle) for handle in entity.peers()]
        return [peer for peer in found if peer is not None and self._is_ours(peer)]

    def _ids(self, entity: Reader | Writer, key: str) -> set[str]:
        items = [user_data_items(peer.qos.user_data) for peer in self._peers_of(entity)]
        return {item[key] for item in items if key in item}

    def _is_ours(self, peer: Discovered) -> bool:
        """Whether the peer is CycloneDDS; another vendor is reported once."""
        guid = peer.guid
        if guid[:2] == VENDOR:
            return True
        if guid[:PREFIX] not in self._foreign:
            self._foreign.add(guid[:PREFIX])
            self.report.push(guid)
        return False

    def _is_reply_to_us(self, sample: Sample) -> bool:
        """Every client of a service receives the replies to all of them."""
        # Whoever sends less than an identity must not end the thread that looks at it.
        if len(sample.data) < BODY_START + IDENTITY.size:
            return False
        return IDENTITY.unpack_from(sample.data, BODY_START)[0] == self.writer_handle

    def _report_foreign(self, guid: bytes) -> None:
        side = "client" if self._is_server else "server"
        self._node.get_logger().error(
            f"A {side} of service '{self.service}' (GUID {guid.hex()}) speaks another DDS vendor's "
            f"service protocol and is ignored\n  to mend: start that {side} with "
            "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp"
        )

    def _on_writer_status(self, status: int) -> None:
        if status & Status.PUBLICATION_MATCHED:
            self._peers_of(self._writer)

    def _on_reader_status(self, status: int) -> None:
        if status & Status.SUBSCRIPTION_MATCHED:
            self._peers_of(self._reader)
        if status & Status.DATA_AVAILABLE:
            for sample in self._reader.take():
                if self._is_server or self._is_reply_to_us(sample):
                    self._on_sample(sample)
