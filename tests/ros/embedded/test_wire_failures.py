"""What goes wrong on the wire: bad bytes are told and dropped, defects leave through `spin`."""

from __future__ import annotations

import pytest
from std_msgs.msg import String

from fastvla_core.errors import RosError
from fastvla_msgs.srv import LoadCheckpoint
from fastvla_ros.embedded.rcl import unreadable
from fastvla_ros.embedded.rcl.service_peers import IDENTITY
from fastvla_ros.embedded.wire.entities import Sample

HEADER = b"\0\1\0\0"
NO_TEXT = b"\3\0\0\0\xff\xfe\0\0"
EMPTY_TEXT = b"\1\0\0\0\0"
# CycloneDDS passes on what has the type's structure; the others are what it would stop, too.
BAD_BYTES = {
    "no UTF-8": HEADER + NO_TEXT,
    "a length that says more than there is": HEADER + b"\xff\0\0\0a\0",
    "the largest length": HEADER + b"\xff\xff\xff\xff",
    "no fields": HEADER,
    "nothing": b"",
    "another encoding": b"\0\3\0\0" + EMPTY_TEXT,
}


@pytest.fixture(autouse=True)
def every_time(monkeypatch):
    """A node tells of the next such message after a while only."""
    monkeypatch.setattr(unreadable, "_TELL_PERIOD_S", 0.0)


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES)
def test_bytes_that_are_not_the_type_are_dropped_and_told(ros, capfd, data):
    node, heard = ros.node("node"), []
    subscription = node.create_subscription(String, "mode", heard.append, 10)
    subscription._queue.append((Sample(memoryview(data), 0, 0), 0))
    subscription.wake()
    node.create_publisher(String, "mode", 10).publish(String(data="good"))
    assert ros.until(lambda: heard)
    assert [message.data for message in heard] == ["good"]
    said = capfd.readouterr().err
    assert "'/mode'" in said
    assert "std_msgs/msg/String" in said


def test_a_text_that_is_none_passes_cyclonedds_and_ends_nobody(ros, capfd):
    node, heard = ros.node("node"), []
    node.create_subscription(String, "mode", heard.append, 10)
    publisher = node.create_publisher(String, "mode", 10)
    publisher.publish(HEADER + NO_TEXT)
    publisher.publish(String(data="good"))
    assert ros.until(lambda: heard)
    assert [message.data for message in heard] == ["good"]
    assert "cannot read std_msgs/msg/String" in capfd.readouterr().err


def test_a_callback_s_own_error_still_leaves_through_spin(ros):
    node = ros.node("node")
    node.create_subscription(String, "mode", lambda message: 1 / 0, 10)
    node.create_publisher(String, "mode", 10).publish(String())
    with pytest.raises(ZeroDivisionError):
        ros.until(lambda: False)


def test_a_request_and_a_reply_that_cannot_be_read_end_nobody(ros, capfd):
    node, served = ros.node("node"), []
    service = node.create_service(LoadCheckpoint, "go", lambda q, r: served.append(q) or r)
    client = node.create_client(LoadCheckpoint, "go")
    assert client.wait_for_service(timeout_sec=5.0)
    answer = client.call_async(LoadCheckpoint.Request(checkpoint_id="nano"))
    identity = IDENTITY.pack(client._peers.writer_handle, 1)
    client._peers._writer.write(bytearray(HEADER + identity + NO_TEXT))
    body = b"\1\0\0\0" + NO_TEXT + EMPTY_TEXT
    service._peers._writer.write(bytearray(HEADER + identity + body))
    assert ros.result(answer) is not None
    ros.spin(0.2)
    assert [request.checkpoint_id for request in served] == ["nano"]
    said = capfd.readouterr().err
    assert "cannot read fastvla_msgs/srv/LoadCheckpoint_Request" in said
    assert "cannot read fastvla_msgs/srv/LoadCheckpoint_Response" in said


def test_a_reply_without_an_identity_is_nobody_s(ros):
    client = ros.node("node").create_client(LoadCheckpoint, "go")
    for size in range(IDENTITY.size):
        sample = Sample(memoryview(HEADER + bytes(size)), 0, 0)
        assert not client._peers._is_reply_to_us(sample)


def test_the_wait_threads_failure_leaves_through_spin(ros):
    ros.node("node")
    ros.context._fail(ZeroDivisionError("in the wait thread"))
    with pytest.raises(RosError) as caught:
        ros.until(lambda: False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
