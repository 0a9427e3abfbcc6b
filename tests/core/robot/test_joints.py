"""Joint states matched by name, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.joints import decode_joint_state, pick_stamp

CONTRACT = load_contract("tabletop")
NAMES = list(CONTRACT.state_names)
POSITIONS = [0.1 * (i + 1) for i in range(len(NAMES))]


@given(st.permutations(range(len(NAMES))))
def test_joints_are_matched_by_name(order: list[int]):
    got = decode_joint_state(
        CONTRACT, names=[NAMES[i] for i in order], positions=[POSITIONS[i] for i in order]
    )
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.asarray(POSITIONS, np.float32))


def test_other_joints_are_passed_over_and_names_are_mapped():
    joint_states = dataclasses.replace(CONTRACT.joint_states, names=(("finger", "gripper"),))
    contract = dataclasses.replace(CONTRACT, joint_states=joint_states)
    names = ["head", *NAMES[:-1], "finger"]
    got = decode_joint_state(contract, names=names, positions=[9.0, *POSITIONS])
    np.testing.assert_array_equal(got, np.asarray(POSITIONS, np.float32))


@pytest.mark.parametrize(
    ("names", "positions", "words"),
    [
        ([], [], ["names no joint"]),
        (NAMES, POSITIONS[:-1], ["7 names", "6 positions"]),
        (NAMES[:-1], POSITIONS[:-1], ["no position for gripper"]),
        ([*NAMES, "joint1"], [*POSITIONS, 0.0], ["'joint1' is there twice"]),
        (NAMES, [*POSITIONS[:-1], float("nan")], ["gripper is not finite"]),
        (NAMES, [float("inf"), *POSITIONS[1:]], ["joint1 is not finite"]),
    ],
)
def test_a_broken_joint_state_is_named(names: list, positions: list, words: list[str]):
    with pytest.raises(MessageError) as caught:
        decode_joint_state(CONTRACT, names=names, positions=positions)
    for word in ["joint_states", *words]:
        assert word in str(caught.value)


def test_what_is_beyond_a_float32_is_not_finite():
    with pytest.raises(MessageError, match="joint1 is not finite"):
        decode_joint_state(CONTRACT, names=NAMES, positions=[1e300, *POSITIONS[1:]])


@pytest.mark.parametrize(
    "names", [["x" * 1_000_000] * 2, [f"joint{n}" for n in range(50, 50_000)], ["\x1b[2J\n", "b"]]
)
def test_foreign_names_are_told_in_one_short_line(names: list[str]):
    with pytest.raises(MessageError) as caught:
        decode_joint_state(CONTRACT, names=names, positions=[0.0] * len(names))
    assert len(caught.value.message) < 1_000
    assert caught.value.message.isprintable()


def test_the_stamp_is_the_contract_s_choice_and_never_zero():
    received = dataclasses.replace(
        CONTRACT, sync=dataclasses.replace(CONTRACT.sync, stamp="receive")
    )
    assert pick_stamp(CONTRACT, header_ns=5, receive_ns=9) == 5
    assert pick_stamp(received, header_ns=5, receive_ns=9) == 9
    assert pick_stamp(CONTRACT, header_ns=0, receive_ns=9) == 9
