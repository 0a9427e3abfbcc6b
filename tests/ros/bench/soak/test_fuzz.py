"""Malformed messages: the same from the same seed, and none more than a refused message."""

from __future__ import annotations

import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bench.soak.fuzz import Fuzzer
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.runtime import ensure_ros, uses_embedded_ros

ensure_ros()
CONTRACT = load_contract("tabletop")
MESSAGES = 600


@pytest.fixture(scope="module")
def made():
    fuzzer = Fuzzer(CONTRACT, seed=11)
    return [fuzzer.make(number) for number in range(MESSAGES)]


def test_a_seed_gives_the_same_messages_again(made):
    again = Fuzzer(CONTRACT, seed=11)
    for number in range(0, MESSAGES, 20):
        one, other = made[number], again.make(number)
        assert (one.stream, one.what) == (other.stream, other.what)
        # NaN differs from itself, its text does not.
        assert repr(one.message) == repr(other.message)


def test_every_stream_and_many_kinds_are_met(made):
    assert {one.stream for one in made} == {"front", "wrist", "joint_states"}
    assert len({one.what for one in made}) > 25
    assert sum(isinstance(one.message, bytes) for one in made) > MESSAGES / 8


def test_the_bridge_refuses_them_in_words_and_takes_good_ones_afterwards(made):
    bridge = StreamBridge(CONTRACT)
    refused: list[str] = []
    for number, one in enumerate(made):
        if isinstance(one.message, bytes):
            continue
        try:
            if one.stream == "joint_states":
                bridge.on_joint_state(one.message, receive_ns=number)
            else:
                bridge.on_image(one.stream, one.message, receive_ns=number)
        except MessageError as error:
            refused.append(str(error))
    assert len(refused) > MESSAGES / 2
    assert sum(bridge.dropped.values()) == len(refused)
    assert max(map(len, refused)) < 2_000


@pytest.mark.skipif(not uses_embedded_ros(), reason="rclpy reads bytes in C")
def test_bytes_are_read_or_refused(made):
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image, JointState

    refused = 0
    for one in made:
        if not isinstance(one.message, bytes):
            continue
        kind = JointState if one.stream == "joint_states" else Image
        try:
            deserialize_message(one.message, kind)
        except MessageError:
            refused += 1
    assert refused > 30
