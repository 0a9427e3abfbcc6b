"""A participant of another DDS vendor, forged packet by packet.

It announces itself and endpoints of its own, and never answers. Source: OMG DDSI-RTPS 2.5, 8.3.7
(submessages), 8.5 (discovery), 9.6.3 (parameters).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# Fast DDS; CycloneDDS is 1.16.
VENDOR = b"\x01\x0f"
PREFIX = VENDOR + b"forged0001"
PARTICIPANT = bytes.fromhex("000001c1")
SPDP_WRITER = bytes.fromhex("000100c2")
SEDP_WRITERS = {"writer": bytes.fromhex("000003c2"), "reader": bytes.fromhex("000004c2")}
KINDS = {"writer": b"\x03", "reader": b"\x04"}
FIRST_PORT, PORTS_PER_DOMAIN = 7410, 250
LOOPBACK = bytes(12) + socket.inet_aton("127.0.0.1")
BUILTIN_ENDPOINTS = 0x3F


@dataclass(frozen=True, slots=True)
class ForeignEndpoint:
    """A `reader` or a `writer` of a DDS topic."""

    kind: str
    topic: str
    type_name: str


class ForeignPeer:
    """Sends its discovery to the first participants of a domain on this machine."""

    def __init__(self, domain_id: int, endpoints: Sequence[ForeignEndpoint]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        first = FIRST_PORT + PORTS_PER_DOMAIN * domain_id
        self._targets = [("127.0.0.1", first + 2 * index) for index in range(4)]
        self._endpoints = endpoints
        self._count = 0

    def announce(self) -> None:
        """Say everything once more; the first time only makes the participant known."""
        self._send(_data(SPDP_WRITER, 1, self._participant()))
        self._count += 1
        for kind, writer in SEDP_WRITERS.items():
            mine = [e for e in self._endpoints if e.kind == kind]
            if mine:
                self._send(_heartbeat(writer, len(mine), self._count))
            for number, endpoint in enumerate(mine, start=1):
                self._send(_data(writer, number, _endpoint(endpoint, number)))

    def close(self) -> None:
        """End; the others notice by the lease."""
        self._socket.close()

    def _participant(self) -> bytes:
        locator = struct.pack("<iI", 1, self._socket.getsockname()[1]) + LOOPBACK
        return _parameters(
            (0x0015, b"\x02\x01\0\0"),
            (0x0016, VENDOR + b"\0\0"),
            (0x0002, struct.pack("<iI", 20, 0)),
            (0x0050, PREFIX + PARTICIPANT),
            (0x0058, struct.pack("<I", BUILTIN_ENDPOINTS)),
            (0x0032, locator),
            (0x0031, locator),
        )

    def _send(self, submessage: bytes) -> None:
        packet = b"RTPS\x02\x01" + VENDOR + PREFIX + submessage
        for target in self._targets:
            self._socket.sendto(packet, target)


def _data(writer: bytes, number: int, payload: bytes) -> bytes:
    body = struct.pack("<HH", 0, 16) + bytes(4) + writer + struct.pack("<iI", 0, number) + payload
    return b"\x15\x05" + struct.pack("<H", len(body)) + body


def _heartbeat(writer: bytes, last: int, count: int) -> bytes:
    body = bytes(4) + writer + struct.pack("<iIiII", 0, 1, 0, last, count)
    return b"\x07\x01" + struct.pack("<H", len(body)) + body


def _endpoint(endpoint: ForeignEndpoint, number: int) -> bytes:
    guid = PREFIX + bytes([0, 0, number]) + KINDS[endpoint.kind]
    return _parameters(
        (0x005A, guid),
        (0x0050, PREFIX + PARTICIPANT),
        (0x0005, _string(endpoint.topic)),
        (0x0007, _string(endpoint.type_name)),
        (0x001A, struct.pack("<IiI", 2, 0x7FFFFFFF, 0xFFFFFFFF)),
    )


def _string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw + bytes(-len(raw) % 4)


def _parameters(*items: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HH", key, len(value)) + value for key, value in items)
    return b"\x00\x03\0\0" + body + struct.pack("<HH", 1, 0)
