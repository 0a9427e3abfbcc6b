"""Following set points by velocity: it arrives, within every limit, joints' and tool's."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastvla_core.errors import ContractError
from fastvla_core.robot.contract import RobotContract, TwistSpec
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.velocity import VelocityFollower, load_twist_converter

TABLETOP = load_contract("tabletop")
DT = 1 / 30
SPEC = TwistSpec(
    urdf="tabletop.urdf", base="base_link", tool="tool0", max_linear=0.25, max_angular=1.0
)
POSE = np.array([0.1, 0.9, -1.4, 0.2, -0.9, 0.3])
VELOCITY = np.array([j.max_velocity for j in TABLETOP.joints])
ACCELERATION = np.array([j.max_acceleration for j in TABLETOP.joints])
LOWER = np.array([j.lower for j in TABLETOP.joints])
UPPER = np.array([j.upper for j in TABLETOP.joints])


def contract(interface: str, *, acceleration: float | None = None, **spec: Any) -> RobotContract:
    outputs = dataclasses.replace(
        TABLETOP.outputs, interface=interface, twist=dataclasses.replace(SPEC, **spec)
    )
    joints = TABLETOP.joints
    if acceleration is not None:
        joints = tuple(dataclasses.replace(j, max_acceleration=acceleration) for j in joints)
    return dataclasses.replace(TABLETOP, outputs=outputs, joints=joints)


def run(follower: VelocityFollower, setpoints, *, start, velocities=None):
    """A robot that does what it is told, one period late; its positions and velocities."""
    measured, late = start.copy(), np.zeros(6)
    positions, commands = [], []
    for index, setpoint in enumerate(setpoints):
        velocity = np.zeros(6) if velocities is None else velocities[index]
        command, _ = follower.follow(setpoint, velocity=velocity, measured=measured, dt_s=DT)
        measured = measured + late * DT
        late = command
        positions.append(measured)
        commands.append(command)
    return np.array(positions), np.array(commands)


def test_it_follows_a_moving_set_point_and_arrives_where_it_stops():
    follower = VelocityFollower(contract("joint_jog"))
    times = np.minimum(np.arange(120) * DT, 2.0)
    path = POSE + 0.3 * np.sin(times)[:, None]
    speed = np.where(np.arange(120) * DT < 2.0, 0.3 * np.cos(times), 0.0)[:, None] * np.ones(6)
    positions, commands = run(follower, path, start=POSE, velocities=speed)
    assert np.abs(positions - path).max() < 0.03
    np.testing.assert_allclose(positions[-1], path[-1], atol=1e-3)
    np.testing.assert_allclose(commands[-1], 0.0, atol=1e-2)


def test_without_the_senders_velocity_the_gain_alone_arrives():
    positions, _ = run(VelocityFollower(contract("joint_jog")), [POSE + 0.2] * 90, start=POSE)
    np.testing.assert_allclose(positions[-1], POSE + 0.2, atol=1e-3)


ANY = st.floats(-1e3, 1e3)


@given(
    arrays(np.float64, (8, 6), elements=ANY),
    arrays(np.float64, (8, 6), elements=ANY),
    arrays(np.float64, 6, elements=st.floats(0, 1)),
)
def test_no_set_points_lead_beyond_the_limits(setpoints, velocities, where):
    measured = LOWER + where * (UPPER - LOWER)
    follower = VelocityFollower(contract("joint_jog"))
    last = np.zeros(6)
    for setpoint, velocity in zip(setpoints, velocities):
        command, _ = follower.follow(setpoint, velocity=velocity, measured=measured, dt_s=DT)
        assert (np.abs(command) <= VELOCITY + 1e-9).all()
        # Only a position limit brakes harder than the acceleration limit.
        assert (np.abs(command) <= np.abs(last) + ACCELERATION * DT + 1e-9).all()
        measured = measured + command * DT
        assert (measured >= LOWER - 1e-9).all()
        assert (measured <= UPPER + 1e-9).all()
        last = command


def test_from_beyond_a_limit_it_only_comes_back():
    follower = VelocityFollower(contract("joint_jog"))
    outside = POSE.copy()
    outside[0] = UPPER[0] + 0.1
    further, limited = follower.follow(
        outside + 0.5, velocity=np.zeros(6), measured=outside, dt_s=DT
    )
    assert further[0] == 0.0
    assert "joint1" in limited
    back, _ = follower.follow(POSE, velocity=np.zeros(6), measured=outside, dt_s=DT)
    assert back[0] < 0.0


def test_it_starts_from_rest_after_a_reset():
    follower = VelocityFollower(contract("joint_jog", acceleration=1.0))
    for _ in range(5):
        moving, _ = follower.follow(POSE + 5, velocity=np.ones(6), measured=POSE, dt_s=DT)
    np.testing.assert_allclose(moving, 5 * DT)
    follower.reset()
    first, _ = follower.follow(POSE + 5, velocity=np.ones(6), measured=POSE, dt_s=DT)
    np.testing.assert_allclose(first, DT)


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_a_twist_moves_the_tool_as_the_joints_would(frame: str):
    converter = load_twist_converter(contract("twist", frame=frame), source="tabletop")
    assert converter is not None
    velocities = np.array([0.1, -0.05, 0.1, 0.2, -0.1, 0.05])
    command = converter.command(velocities, at=POSE, stamp_ns=5)
    assert (command.frame, command.stamp_ns) == ({"base": "base_link", "tool": "tool0"}[frame], 5)
    chain, step = converter._chain, 1e-6
    begin, end = chain.pose(POSE), chain.pose(POSE + step * velocities)
    linear = (end.position - begin.position) / step
    spin = (end.rotation @ begin.rotation.T - np.eye(3)) / step
    angular = np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
    into = begin.rotation.T if frame == "tool" else np.eye(3)
    np.testing.assert_allclose(command.linear, into @ linear, atol=1e-5)
    np.testing.assert_allclose(command.angular, into @ angular, atol=1e-5)


def test_at_rest_the_twist_is_zero_even_where_nothing_is_measured():
    converter = load_twist_converter(contract("twist"), source="tabletop")
    assert converter is not None
    command = converter.command(np.zeros(6), at=np.full(6, np.nan), stamp_ns=0)
    assert not command.linear.any()
    assert not command.angular.any()


@given(arrays(np.float64, 6, elements=st.floats(-2, 2)))
def test_the_tools_limits_slow_it_down_on_its_path(offset):
    robot = contract("twist", acceleration=1e3)
    converter = load_twist_converter(robot, source="tabletop")
    assert converter is not None
    follower = VelocityFollower(robot, twist=converter)
    free, _ = VelocityFollower(robot).follow(
        POSE + offset, velocity=np.zeros(6), measured=POSE, dt_s=DT
    )
    command, limited = follower.follow(POSE + offset, velocity=np.zeros(6), measured=POSE, dt_s=DT)
    twist = converter.command(command, at=POSE, stamp_ns=0)
    assert np.linalg.norm(twist.linear) <= SPEC.max_linear + 1e-9
    assert np.linalg.norm(twist.angular) <= SPEC.max_angular + 1e-9
    # Slower, in the same direction, and it says so.
    np.testing.assert_allclose(
        command * np.linalg.norm(free), free * np.linalg.norm(command), atol=1e-6
    )
    if np.linalg.norm(command) < np.linalg.norm(free) - 1e-6:
        assert limited


def test_other_interfaces_need_no_urdf():
    assert load_twist_converter(TABLETOP, source="tabletop") is None


def test_a_missing_urdf_is_named(tmp_path):
    robot = contract("twist", urdf="arm.urdf")
    with pytest.raises(ContractError, match=r"outputs\.twist\.urdf: there is no file .*arm\.urdf"):
        load_twist_converter(robot, source=tmp_path / "robot.yaml")


def test_a_urdf_lies_beside_its_contract_and_uses_the_drivers_names(tmp_path):
    from fastvla_core.resources import share_path

    text = share_path("config/robots/tabletop.urdf").read_text()
    (tmp_path / "arm.urdf").write_text(text.replace('name="joint1"', 'name="shoulder_pan"'))
    plain = contract("twist", urdf="arm.urdf")
    with pytest.raises(ContractError, match=r"'shoulder_pan' moves the tool"):
        load_twist_converter(plain, source=tmp_path / "robot.yaml")
    names = dataclasses.replace(TABLETOP.joint_states, names=(("shoulder_pan", "joint1"),))
    renamed = dataclasses.replace(plain, joint_states=names)
    assert load_twist_converter(renamed, source=tmp_path / "robot.yaml") is not None
