"""The topics of a contract, with the types that the nodes use."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from fastvla_core.bags import definitions
from fastvla_core.robot.contract import CommandInterface
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.recording import streams
from fastvla_ros.runtime import ensure_ros

ensure_ros()
CONTRACT = load_contract("tabletop")


@pytest.mark.parametrize("interface", typing.get_args(CommandInterface))
def test_every_output_of_the_guard_can_be_subscribed_to_and_written(interface):
    outputs = dataclasses.replace(CONTRACT.outputs, interface=interface)
    contract = dataclasses.replace(CONTRACT, outputs=outputs)
    stream = next(s for s in streams.serving_streams(contract) if s.name == "output")
    assert stream.type_name == outputs.message_type
    assert streams.message_class(stream.type_name)
    assert definitions.is_known(stream.type_name)


def test_every_stream_can_be_subscribed_to_and_written():
    every = (
        *streams.robot_streams(CONTRACT), *streams.serving_streams(CONTRACT),
        *streams.task_streams(),
    )  # fmt: skip
    assert len({stream.name for stream in every}) == len(every)
    for stream in every:
        assert streams.message_class(stream.type_name)
        assert definitions.definition(stream.type_name)


def test_the_stamp_of_a_serialised_message():
    from builtin_interfaces.msg import Time
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import JointState

    message = JointState(name=["a"], position=[1.0])
    message.header.stamp = Time(sec=7, nanosec=8)
    data = bytes(serialize_message(message))
    assert streams.header_stamp_ns(data) == 7_000_000_008
    assert [streams.header_stamp_ns(data[:size]) for size in range(12)] == [0] * 12


def test_bytes_that_are_no_message_are_none():
    from rclpy.serialization import serialize_message
    from std_msgs.msg import String

    data = bytes(serialize_message(String(data="wave")))
    assert streams.read_message(data, String).data == "wave"
    assert streams.read_message(data[:9], String) is None
    assert streams.read_message(b"", String) is None
