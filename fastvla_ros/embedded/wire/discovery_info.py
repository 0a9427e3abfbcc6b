"""`ros_discovery_info`: which nodes a participant has, and which endpoints belong to them.

Written and read here and not through message classes: every endpoint that is made announces all
of its process, and the classes' fixed arrays would bring NumPy into programs that need none.
Source: rmw_dds_common/msg/{ParticipantEntitiesInfo,NodeEntitiesInfo,Gid}.msg.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire import cdr

TOPIC = "ros_discovery_info"
TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
GID_BYTES = 16


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node as announced, with the GUIDs of its participant and of its endpoints."""

    participant: bytes
    namespace: str
    name: str
    readers: frozenset[bytes]
    writers: frozenset[bytes]


def write_info(participant: bytes, nodes: Sequence[GraphNode]) -> bytearray:
    """The CDR bytes, with encapsulation header, of one participant's announcement."""
    buffer = bytearray(cdr.HEADER)
    buffer += participant
    cdr.write_length(buffer, len(nodes))
    for node in nodes:
        cdr.write_string(buffer, node.namespace)
        cdr.write_string(buffer, node.name)
        _write_gids(buffer, node.readers)
        _write_gids(buffer, node.writers)
    return buffer


def read_info(data: bytes | memoryview) -> tuple[bytes, list[GraphNode]]:
    """The participant and its nodes.

    Raises:
        MessageError: the bytes are not an announcement.
    """
    try:
        body = cdr.body(data)
        participant = bytes(body[:GID_BYTES])
        nodes: list[GraphNode] = []
        count, pos = cdr.read_length(body, GID_BYTES)
        for _ in range(count):
            namespace, pos = cdr.read_string(body, pos)
            name, pos = cdr.read_string(body, pos)
            readers, pos = _read_gids(body, pos)
            writers, pos = _read_gids(body, pos)
            nodes.append(GraphNode(participant, namespace, name, readers, writers))
    except (struct.error, UnicodeDecodeError, MessageError) as error:
        raise MessageError(f"cannot read {TYPE}: {error}") from error
    return participant, nodes


def _write_gids(buffer: bytearray, guids: Collection[bytes]) -> None:
    cdr.write_length(buffer, len(guids))
    buffer += b"".join(sorted(guids))


def _read_gids(body: memoryview, pos: int) -> tuple[frozenset[bytes], int]:
    count, pos = cdr.read_length(body, pos)
    end = pos + count * GID_BYTES
    if end > len(body):
        raise MessageError(f"{count} endpoints end beyond the message")
    return frozenset(bytes(body[at : at + GID_BYTES]) for at in range(pos, end, GID_BYTES)), end
