"""Other ways to stand for an instant than the newest sample: nearest, linear, slerp."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import ContractError
from fastvla_core.robot.align import StaleStreamError, observe
from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract, parse_contract
from fastvla_core.robot.interpolate import between, slerp

CONTRACT = load_contract("tabletop")
MS = 1_000_000


def contract_with(
    *, state: str = "hold", cameras: str = "hold", orientations: tuple = ()
) -> RobotContract:
    joints = dataclasses.replace(CONTRACT.joint_states, align=state, orientations=orientations)
    kinds = tuple(dataclasses.replace(c, align=cameras) for c in CONTRACT.cameras)
    return dataclasses.replace(CONTRACT, joint_states=joints, cameras=kinds)


def buffers(joints: dict[int, list[float]], pictures: dict[int, int]) -> StreamBuffers:
    made = StreamBuffers()
    for at_ms, value in joints.items():
        made.push(JOINT_STATES, stamp_ns=at_ms * MS, value=np.asarray(value, np.float32))
    for at_ms, value in pictures.items():
        for name in ("front", "wrist"):
            image = np.full((96, 96, 3), value, np.uint8)
            made.push(name, stamp_ns=at_ms * MS, value=image)
    return made


def seen(made: StreamBuffers, contract: RobotContract, at_ms: int):
    return observe(made, contract=contract, task="x", at_ns=at_ms * MS)


def test_the_closest_picture_may_be_a_later_one():
    made = buffers({0: [0.0] * 7, 100: [0.0] * 7}, {0: 1, 60: 2})
    near = contract_with(cameras="nearest")
    assert seen(made, near, 29).images["front"][0, 0, 0] == 1
    assert seen(made, near, 31).images["front"][0, 0, 0] == 2
    assert seen(made, contract_with(), 59).images["front"][0, 0, 0] == 1
    assert seen(made, near, 31).oldest_age_ns == 31 * MS


def test_the_closest_picture_must_be_close():
    made = buffers({0: [0.0] * 7, 400: [0.0] * 7}, {0: 1, 800: 2})
    joints = dataclasses.replace(contract_with(cameras="nearest").joint_states, max_age_s=1.0)
    near = dataclasses.replace(contract_with(cameras="nearest"), joint_states=joints)
    with pytest.raises(StaleStreamError, match="front"):
        seen(made, near, 400)


def test_joints_lie_on_the_line_between_and_the_gripper_is_held():
    made = buffers({0: [0.0] * 7, 40: [0.4] * 6 + [0.04]}, {0: 1})
    state = seen(made, contract_with(state="linear"), 10).state
    assert state == pytest.approx([0.1] * 6 + [0.0])
    assert seen(made, contract_with(state="linear"), 40).state[-1] == pytest.approx(0.04)
    assert seen(made, contract_with(), 39).state == pytest.approx([0.0] * 7)


def test_a_line_is_not_drawn_over_a_hole():
    made = buffers({0: [0.0] * 7, 150: [1.0] * 7}, {0: 1, 100: 1})
    with pytest.raises(StaleStreamError, match="joint_states"):
        seen(made, contract_with(state="linear"), 20)


def test_joints_that_have_not_arrived_are_not_guessed():
    made = buffers({0: [0.0] * 7}, {0: 1, 20: 1})
    with pytest.raises(StaleStreamError, match="joint_states"):
        seen(made, contract_with(state="linear"), 20)


angles = st.floats(-3.0, 3.0)
unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(unit, unit, st.floats(0, 1))
def test_slerp_stays_on_the_sphere_and_meets_both_ends(first, last, weight):
    a, b = (np.asarray(q) / np.linalg.norm(q) for q in (first, last))
    middle = slerp(a, b, weight=np.array([weight]))
    assert np.linalg.norm(middle) == pytest.approx(1.0)
    assert slerp(a, b, weight=np.array([0.0])) == pytest.approx(a, abs=1e-6)
    # A quaternion and its negative are one orientation.
    end = slerp(a, b, weight=np.array([1.0]))
    assert abs(float(end @ b)) == pytest.approx(1.0, abs=1e-6)


@given(angles, angles, st.floats(0, 1))
def test_turns_about_one_axis_are_linear_in_the_angle(first, last, weight):
    def about_z(angle: float) -> np.ndarray:
        return np.array([0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)])

    turned = slerp(about_z(first), about_z(last), weight=np.array([weight]))
    difference = (last - first + np.pi) % (2 * np.pi) - np.pi
    if abs(abs(difference) - np.pi) < 1e-3:
        return
    expected = about_z(first + weight * difference)
    assert abs(float(turned @ expected)) == pytest.approx(1.0, abs=1e-6)


def test_orientations_among_the_joints_turn_and_the_others_do_not():
    group = ("joint1", "joint2", "joint3", "joint4")
    contract = contract_with(state="linear", orientations=(group,))
    half = np.sqrt(0.5)
    before = np.array([0, 0, 0, 1.0, 0.0, 0.0, 0.01])
    after = np.array([0, 0, half, half, 1.0, 2.0, 0.02])
    value = between(contract, before=before, after=after, weight=np.array([0.5]))
    eighth = np.pi / 8
    expected = [0, 0, np.sin(eighth), np.cos(eighth), 0.5, 1.0, 0.01]
    assert value == pytest.approx(expected)


def test_the_contract_keeps_its_hash_and_carries_the_new_keys():
    changed = contract_with(
        state="linear", cameras="nearest", orientations=(("joint1", "joint2", "joint3", "joint4"),)
    )
    assert parse_contract(changed.to_dict()) == changed
    assert changed.hash() != CONTRACT.hash()
    data = CONTRACT.to_dict()
    del data["joint_states"]["align"], data["joint_states"]["orientations"]
    for camera in data["cameras"].values():
        del camera["align"]
    assert parse_contract(data).hash() == CONTRACT.hash()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("align", "nearest", "expected one of hold, linear"),
        ("orientations", [["joint1", "joint2", "joint3", "gripper"]], "no joint"),
        ("orientations", [["joint1", "joint1", "joint3", "joint4"]], "twice"),
        ("orientations", [["joint1", "joint2"]], "2 entries"),
    ],
)
def test_what_cannot_be_aligned_so_is_refused(key, value, words):
    data = CONTRACT.to_dict()
    data["joint_states"][key] = value
    with pytest.raises(ContractError, match=words):
        parse_contract(data)
