"""What participants announce, against the message classes."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.discovery_info import TYPE, GraphNode, read_info, write_info
from fastvla_ros.embedded.wire.messages import deserialize, serialize
from fastvla_ros.embedded.wire.runtime import wire_runtime

PARTICIPANT = bytes(range(16))


def node(name, readers=(), writers=()):
    guids = [frozenset(bytes([n]) * 16 for n in numbers) for numbers in (readers, writers)]
    return GraphNode(PARTICIPANT, "/" + "space" * len(name), name, *guids)


NODES = [node("a", [3, 1], [2]), node("", [], [9, 8, 7]), node("long_name")]


def test_the_bytes_are_those_of_the_message():
    factory = wire_runtime().factory
    gid = factory.message("rmw_dds_common/msg/Gid")
    entities = factory.message("rmw_dds_common/msg/NodeEntitiesInfo")

    def gids(guids):
        return [gid(data=np.frombuffer(guid, np.uint8)) for guid in sorted(guids)]

    message = factory.message(TYPE)(
        gid=gid(data=np.frombuffer(PARTICIPANT, np.uint8)),
        node_entities_info_seq=[
            entities(
                node_namespace=n.namespace,
                node_name=n.name,
                reader_gid_seq=gids(n.readers),
                writer_gid_seq=gids(n.writers),
            )
            for n in NODES
        ],
    )
    assert write_info(PARTICIPANT, NODES) == serialize(message)
    assert deserialize(bytes(write_info(PARTICIPANT, NODES)), factory.message(TYPE)) == message


def test_what_was_written_is_read():
    assert read_info(write_info(PARTICIPANT, NODES)) == (PARTICIPANT, NODES)


@pytest.mark.parametrize("length", range(0, 160, 7))
def test_half_an_announcement_is_refused(length):
    whole = write_info(PARTICIPANT, NODES)
    assert length < len(whole)
    with pytest.raises(MessageError):
        read_info(whole[:length])
