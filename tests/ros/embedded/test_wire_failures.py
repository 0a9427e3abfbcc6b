"""What goes wrong on the wire leaves through `spin`."""

from __future__ import annotations

import pytest
from std_msgs.msg import String

from fastvla_core.errors import MessageError, RosError
from fastvla_ros.embedded.wire.entities import Sample


def test_bytes_that_are_not_the_type_leave_through_spin(ros):
    node = ros.node("node")
    subscription = node.create_subscription(String, "mode", lambda m: None, 10)
    # The length of the string says more than there is.
    sample = Sample(memoryview(b"\x00\x01\x00\x00\xff\x00\x00\x00a\x00"), 0, 0)
    subscription._queue.append((sample, 0))
    subscription.wake()
    with pytest.raises(MessageError, match="std_msgs/msg/String"):
        ros.until(lambda: False)


def test_the_wait_threads_failure_leaves_through_spin(ros):
    ros.node("node")
    ros.context._fail(ZeroDivisionError("in the wait thread"))
    with pytest.raises(RosError) as caught:
        ros.until(lambda: False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
