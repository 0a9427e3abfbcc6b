"""Readers and writers below rclpy's."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.embedded.wire.dds_qos import DdsQos, native, read_qos
from fastvla_ros.embedded.wire.entities import VIEW_BYTES
from tests.ros.ros_session import ROOT

KIND = "std_msgs/msg/String"
RELIABLE = DdsQos(reliable=True, depth=5)


def text(characters: int) -> bytearray:
    """CDR of a string; the length counts its final zero."""
    header, length = b"\x00\x01\x00\x00", (characters + 1).to_bytes(4, "little")
    return bytearray(header + length + b"x" * characters + b"\0")


@pytest.fixture
def pair(ros):
    ros.node("node")
    participant = ros.context.participant
    reader = participant.topic_reader("some", KIND, RELIABLE)
    writer = participant.topic_writer("some", KIND, RELIABLE)
    yield writer, reader
    writer.delete()
    reader.delete()


@pytest.mark.parametrize("characters", [0, 1, VIEW_BYTES, 100_000])
def test_bytes_come_as_they_were_written_and_outlive_the_reader(pair, characters):
    writer, reader = pair
    writer.write(text(characters))
    (sample,) = reader.take()
    reader.delete()
    writer.delete()
    gc.collect()
    assert bytes(sample.data[: len(text(characters))]) == text(characters)
    assert sample.data.readonly


def test_more_samples_than_one_take_holds_come_at_once(ros):
    ros.node("node")
    participant, qos = ros.context.participant, DdsQos(reliable=True)
    reader = participant.topic_reader("many", KIND, qos)
    writer = participant.topic_writer("many", KIND, qos)
    for characters in range(40):
        writer.write(text(characters))
    samples = reader.take()
    assert [bytes(sample.data[4:8])[0] for sample in samples] == list(range(1, 41))
    assert reader.take() == []


def test_an_endpoint_that_was_just_deleted_has_nothing(pair):
    writer, reader = pair
    reader.delete()
    assert reader.take() == []
    assert reader.peers() == []
    writer.delete()
    with pytest.raises(RosError, match="dds_write"):
        writer.write(text(1))


def test_a_peer_is_described_and_one_that_has_gone_is_not(ros, pair):
    writer, reader = pair
    (handle,) = writer.peers()
    assert writer.peer(handle).guid == reader.guid
    assert writer.peer(handle).topic == "some"
    reader.delete()
    assert ros.until(lambda: writer.peer(handle) is None)


@pytest.mark.parametrize(
    "qos",
    [
        DdsQos(reliable=False),
        DdsQos(reliable=True, transient_local=True, user_data=b"a=1;b=\0;"),
        DdsQos(reliable=True, deadline_ns=5, lifespan_ns=6, by_topic=True, lease_ns=7),
    ],
)
def test_a_qos_survives_the_way_into_c_and_back(qos):
    with native(qos) as pointer:
        assert read_qos(pointer) == qos


def test_the_binding_can_be_used_beside_the_runtime():
    """Its C layer was loaded without it, and must still make its own sample infos."""
    code = (
        "import sys\n"
        "from fastvla_ros.runtime import ensure_ros\n"
        "ensure_ros()\n"
        "import rclpy\n"
        "rclpy.init()\n"
        "assert 'cyclonedds.internal' not in sys.modules\n"
        "from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant\n"
        "from cyclonedds.domain import DomainParticipant\n"
        "from cyclonedds.internal import SampleInfo\n"
        "participant = DomainParticipant(rclpy.get_default_context().get_domain_id())\n"
        "reader = BuiltinDataReader(participant, BuiltinTopicDcpsParticipant)\n"
        "print(all(isinstance(s.sample_info, SampleInfo) for s in reader.take(9)))\n"
        "rclpy.shutdown()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "True\n", done.stderr
