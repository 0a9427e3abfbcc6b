"""What was observed before: aligned like the present, kept long enough, never made up."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.robot.align import StaleStreamError, observe, observe_with_past
from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract_file import load_contract

CONTRACT = load_contract("tabletop")
MS = 1_000_000


def push(buffers: StreamBuffers, at_ms: int, *, cameras: bool = True) -> None:
    number = at_ms // 10
    for camera in ("front", "wrist") if cameras else ():
        image = np.full((2, 2, 3), number, np.uint8)
        buffers.push(camera, stamp_ns=at_ms * MS, value=image)
    state = np.full(7, number, np.float32)
    buffers.push(JOINT_STATES, stamp_ns=at_ms * MS, value=state)


def past(buffers: StreamBuffers, *history_s: float) -> list[int]:
    seen = observe_with_past(buffers, contract=CONTRACT, task="pick", history_s=history_s)
    assert seen.stamp_ns == observe(buffers, contract=CONTRACT, task="pick").stamp_ns
    return [moment.stamp_ns // MS for moment in seen.earlier]


def test_earlier_moments_are_what_observing_then_would_have_given():
    buffers = StreamBuffers()
    for at_ms in range(0, 510, 30):
        push(buffers, at_ms)
    seen = observe_with_past(buffers, contract=CONTRACT, task="pick", history_s=(0.2, 0.1))
    assert [moment.stamp_ns for moment in seen.earlier] == [280 * MS, 380 * MS]
    for moment in seen.earlier:
        then = observe(buffers, contract=CONTRACT, task="pick", at_ns=moment.stamp_ns)
        assert moment.images["front"][0, 0, 0] == then.images["front"][0, 0, 0]
        assert np.array_equal(moment.state, then.state)
        assert moment.task == "pick"
    assert seen.earlier[0].state[0] < seen.earlier[1].state[0] < seen.state[0]


def test_what_nobody_saw_is_left_out_with_all_that_is_older():
    buffers = StreamBuffers()
    push(buffers, 1000)
    assert past(buffers, 0.2, 0.1) == []
    push(buffers, 1100)
    assert past(buffers, 0.2, 0.1) == [1000]
    push(buffers, 1400)
    # 1300 has only images of 1100, which are too old by then.
    assert past(buffers, 0.3, 0.1) == []


def test_a_stale_present_is_an_error_whatever_was_before():
    buffers = StreamBuffers()
    push(buffers, 1000, cameras=False)
    with pytest.raises(StaleStreamError, match="front"):
        past(buffers, 0.1)


def test_buffers_keep_the_span_that_a_policy_reads_and_one_sample_before_it():
    buffers = StreamBuffers(capacity=2)
    buffers.keep(100 * MS)
    for at_ms in range(0, 200, 10):
        push(buffers, at_ms)
    assert buffers.hold("front", at_ns=95 * MS) is not None
    assert buffers.hold("front", at_ns=79 * MS) is None
    assert past(buffers, 0.1) == [90]
    buffers.keep(0)
    push(buffers, 200)
    assert buffers.hold("front", at_ns=189 * MS) is None
