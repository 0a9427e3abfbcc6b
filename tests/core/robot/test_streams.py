"""Buffers and alignment: hold, age, skew, clock jumps, and independence of arrival order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.robot.align import StaleStreamError, check_fresh, observe
from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract_file import load_contract

CONTRACT = load_contract("tabletop")
MS = 1_000_000


def image(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def filled(front_ms: int = 100, wrist_ms: int = 110, joints_ms: int = 120) -> StreamBuffers:
    buffers = StreamBuffers()
    buffers.push("front", stamp_ns=front_ms * MS, value=image(1))
    buffers.push("wrist", stamp_ns=wrist_ms * MS, value=image(2))
    buffers.push(JOINT_STATES, stamp_ns=joints_ms * MS, value=np.arange(7, dtype=np.float32))
    return buffers


def test_observation_is_taken_where_every_stream_has_arrived():
    buffers = filled()
    buffers.push("wrist", stamp_ns=90 * MS, value=image(9))
    buffers.push(JOINT_STATES, stamp_ns=95 * MS, value=np.zeros(7, np.float32))
    seen = observe(buffers, contract=CONTRACT, task="pick")
    assert seen.stamp_ns == 100 * MS
    assert seen.images["wrist"][0, 0, 0] == 9
    assert seen.oldest_age_ns == 10 * MS
    assert seen.camera_skew_ns == 10 * MS


@given(st.permutations(range(12)))
def test_arrival_order_between_streams_does_not_matter(order: list[int]):
    stamps = [("front", 33), ("wrist", 34), (JOINT_STATES, 10)]
    arrivals = []
    for index in order:
        stream, period = stamps[index % 3]
        arrivals.append((stream, (1 + index // 3) * period * MS, index))
    arrivals.sort(key=lambda a: a[1])
    one, other = StreamBuffers(), StreamBuffers()
    for stream, stamp, index in arrivals:
        value = np.full(7, index, np.float32) if stream == JOINT_STATES else image(index)
        one.push(stream, stamp_ns=stamp, value=value)
    for stream, stamp, index in sorted(arrivals, key=lambda a: (a[0], a[1])):
        value = np.full(7, index, np.float32) if stream == JOINT_STATES else image(index)
        other.push(stream, stamp_ns=stamp, value=value)
    a, b = (observe(x, contract=CONTRACT, task="t") for x in (one, other))
    assert a.stamp_ns == b.stamp_ns
    assert all((a.images[n] == b.images[n]).all() for n in a.images)
    assert (a.state == b.state).all()


def test_missing_stream_is_named():
    buffers = StreamBuffers()
    buffers.push(JOINT_STATES, stamp_ns=MS, value=np.zeros(7, np.float32))
    with pytest.raises(StaleStreamError) as caught:
        observe(buffers, contract=CONTRACT, task="t")
    assert caught.value.stream == "front"


def test_old_camera_and_skewed_cameras_are_refused():
    late = filled(front_ms=100, wrist_ms=400, joints_ms=400)
    with pytest.raises(StaleStreamError, match="front"):
        observe(late, contract=CONTRACT, task="t", at_ns=400 * MS)
    skewed = filled(front_ms=100, wrist_ms=170, joints_ms=170)
    with pytest.raises(StaleStreamError, match="behind the others") as caught:
        observe(skewed, contract=CONTRACT, task="t", at_ns=170 * MS)
    assert caught.value.stream == "front"


def test_optional_camera_is_left_out_and_never_invented():
    cameras = tuple(
        dataclasses.replace(c, required=False) if c.name == "wrist" else c for c in CONTRACT.cameras
    )
    contract = dataclasses.replace(CONTRACT, cameras=cameras)
    buffers = StreamBuffers()
    buffers.push("front", stamp_ns=MS, value=image(1))
    buffers.push(JOINT_STATES, stamp_ns=MS, value=np.zeros(7, np.float32))
    assert set(observe(buffers, contract=contract, task="t").images) == {"front"}


def test_optional_camera_that_lags_is_left_out():
    cameras = tuple(
        dataclasses.replace(c, required=c.name != "wrist") for c in CONTRACT.policy_cameras
    )
    contract = dataclasses.replace(CONTRACT, cameras=cameras)
    seen = observe(filled(170, 100, 170), contract=contract, task="t", at_ns=170 * MS)
    assert set(seen.images) == {"front"}
    assert seen.camera_skew_ns == 0


def test_quiet_stream_is_found_by_the_clock():
    buffers = filled(100, 100, 100)
    check_fresh(buffers, contract=CONTRACT, now_ns=150 * MS)
    with pytest.raises(StaleStreamError) as caught:
        check_fresh(buffers, contract=CONTRACT, now_ns=240 * MS)
    assert caught.value.stream == JOINT_STATES


def test_backward_clock_jump_clears_every_stream():
    buffers = filled(5000, 5000, 5000)
    buffers.push("front", stamp_ns=100 * MS, value=image(3))
    assert buffers.clock_jumps == 1
    assert buffers.newest_ns("wrist") is None
    assert buffers.newest_ns("front") == 100 * MS


def test_late_sample_is_sorted_in_and_duplicate_refused():
    buffers = StreamBuffers(capacity=3)
    for stamp in (10, 30):
        assert buffers.push("s", stamp_ns=stamp, value=stamp)
    assert buffers.push("s", stamp_ns=20, value=20)
    assert not buffers.push("s", stamp_ns=20, value=21)
    held = buffers.hold("s", at_ns=25)
    assert held is not None
    assert held.value == 20


def test_capacity_keeps_the_newest():
    buffers = StreamBuffers(capacity=2)
    for stamp in range(5):
        buffers.push("s", stamp_ns=stamp, value=stamp)
    assert buffers.hold("s", at_ns=2) is None
    assert buffers.newest_ns("s") == 4


def test_the_horizon_is_what_every_stream_has_reached():
    buffers = StreamBuffers()
    buffers.push("a", stamp_ns=10, value=0)
    assert buffers.horizon_ns(["a", "b"]) is None
    buffers.push("b", stamp_ns=30, value=0)
    buffers.push("b", stamp_ns=20, value=0)
    assert buffers.horizon_ns(["a", "b"]) == 10
    assert buffers.horizon_ns(["b"]) == 30


def test_nothing_is_seen_before_every_stream_has_begun():
    buffers = StreamBuffers()
    buffers.push(JOINT_STATES, stamp_ns=10, value=np.zeros(7, np.float32))
    with pytest.raises(StaleStreamError, match="'front' has published nothing") as caught:
        observe(buffers, contract=CONTRACT, task="x")
    assert caught.value.stream == "front"


def test_a_sample_is_replaced_or_removed_by_its_stamp():
    buffers = StreamBuffers()
    for stamp in (10, 20, 30):
        buffers.push("s", stamp_ns=stamp, value=stamp)
    buffers.replace("s", stamp_ns=20, value="new")
    buffers.replace("s", stamp_ns=25, value="nobody")
    held = buffers.hold("s", at_ns=29)
    assert held is not None
    assert held.value == "new"
    buffers.remove("s", stamp_ns=20)
    buffers.remove("s", stamp_ns=21)
    held = buffers.hold("s", at_ns=29)
    assert held is not None
    assert (held.stamp_ns, held.value) == (10, 10)
    assert buffers.newest_ns("s") == 30
