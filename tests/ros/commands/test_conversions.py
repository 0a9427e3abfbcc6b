"""Every command variant to its message and back."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import CommandInterface, OutputsSpec
from fastvla_core.types import (
    ForwardPositionCommand,
    GripperCommand,
    JointJogCommand,
    JointTrajectoryCommand,
    TwistCommand,
)
from fastvla_ros.runtime import ensure_ros

ensure_ros()

from fastvla_ros.bridge.classes import message_class  # noqa: E402
from fastvla_ros.commands import (  # noqa: E402
    arm,
    forward_position,
    gripper,
    joint_jog,
    joint_trajectory,
    twist,
)

NAMES = ("joint1", "joint2", "gripper")


def command(**changes) -> JointTrajectoryCommand:
    fields = {
        "stamp_ns": 12_000_000_034,
        "names": NAMES,
        "positions": np.array([0.1, -0.2, 0.03]),
        "velocities": np.array([1.0, 0.0, -0.5]),
        "duration_s": 1 / 30,
    }
    return JointTrajectoryCommand(**{**fields, **changes})


_VALUES = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3).map(np.array)


@given(_VALUES, _VALUES, st.integers(0, 2**31 * 10**9 - 1), st.floats(0, 100))
def test_a_trajectory_command_survives_the_message(positions, velocities, stamp_ns, duration_s):
    sent = command(
        positions=positions, velocities=velocities, stamp_ns=stamp_ns, duration_s=duration_s
    )
    got = joint_trajectory.from_message(joint_trajectory.to_message(sent))
    assert (got.stamp_ns, got.names) == (sent.stamp_ns, sent.names)
    assert got.duration_s == pytest.approx(sent.duration_s, abs=1e-9)
    np.testing.assert_array_equal(got.positions, sent.positions)
    np.testing.assert_array_equal(got.velocities, sent.velocities)


def test_missing_velocities_say_nothing():
    message = joint_trajectory.to_message(command(velocities=None))
    assert len(message.points[0].velocities) == 0
    assert joint_trajectory.from_message(message).velocities is None


def test_a_joint_trajectory_controller_takes_the_point():
    point = joint_trajectory.to_message(command(stamp_ns=0)).points[0]
    # It refuses a time that has passed; and it moves to the point, so that is never at once.
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 33_333_333)
    assert len(point.positions) == len(point.velocities) == 3


@pytest.mark.parametrize("points", [0, 2])
def test_only_one_point_is_a_command(points: int):
    message = joint_trajectory.to_message(command())
    message.points = list(message.points) * points
    with pytest.raises(CommandError, match=f"has {points} points"):
        joint_trajectory.from_message(message)


@pytest.mark.parametrize("field", ["positions", "velocities"])
def test_other_counts_than_names_are_refused(field: str):
    message = joint_trajectory.to_message(command())
    setattr(message.points[0], field, [0.0, 1.0])
    with pytest.raises(CommandError, match="names 3 joints"):
        joint_trajectory.from_message(message)


def test_forward_positions_are_bare_numbers():
    message = forward_position.to_message(
        ForwardPositionCommand(stamp_ns=1, positions=np.array([0.5, -0.5]))
    )
    assert list(message.data) == [0.5, -0.5]


@given(_VALUES, st.integers(0, 2**31 * 10**9 - 1))
def test_a_jog_survives_the_message(velocities, stamp_ns):
    sent = JointJogCommand(stamp_ns=stamp_ns, names=NAMES, velocities=velocities, duration_s=0.066)
    message = joint_jog.to_message(sent)
    assert not message.displacements
    got = joint_jog.from_message(message)
    assert (got.stamp_ns, got.names, got.duration_s) == (stamp_ns, NAMES, 0.066)
    np.testing.assert_array_equal(got.velocities, velocities)


@given(_VALUES, _VALUES, st.integers(0, 2**31 * 10**9 - 1))
def test_a_twist_survives_the_message(linear, angular, stamp_ns):
    sent = TwistCommand(stamp_ns=stamp_ns, frame="tool0", linear=linear, angular=angular)
    message = twist.to_message(sent)
    assert message.header.frame_id == "tool0"
    got = twist.from_message(message)
    assert (got.stamp_ns, got.frame) == (stamp_ns, "tool0")
    np.testing.assert_array_equal(got.linear, linear)
    np.testing.assert_array_equal(got.angular, angular)


def test_broken_velocities_are_refused():
    jog = joint_jog.to_message(
        JointJogCommand(stamp_ns=0, names=NAMES, velocities=np.zeros(3), duration_s=0.0)
    )
    jog.velocities = [0.0, float("nan"), 0.0]
    with pytest.raises(CommandError, match="jog of 3 joints"):
        joint_jog.from_message(jog)
    jog.velocities = [0.0]
    with pytest.raises(CommandError, match="jog of 3 joints"):
        joint_jog.from_message(jog)
    message = twist.to_message(
        TwistCommand(stamp_ns=0, frame="base", linear=np.zeros(3), angular=np.zeros(3))
    )
    message.twist.angular.z = float("inf")
    with pytest.raises(CommandError, match="not finite"):
        twist.from_message(message)


COMMANDS = {
    "joint_trajectory": command(),
    "forward_position": ForwardPositionCommand(stamp_ns=0, positions=np.zeros(3)),
    "joint_jog": JointJogCommand(stamp_ns=0, names=NAMES, velocities=np.zeros(3), duration_s=0.1),
    "twist": TwistCommand(stamp_ns=0, frame="base", linear=np.zeros(3), angular=np.zeros(3)),
}


@pytest.mark.parametrize("interface", get_args(CommandInterface))
def test_every_interface_has_its_message(interface: CommandInterface):
    message = arm.to_message(COMMANDS[interface])
    assert type(message) is message_class(OutputsSpec(interface=interface).message_type)


def test_the_gripper_goal_of_each_interface():
    wanted = GripperCommand(stamp_ns=0, name="gripper", position=0.02, max_effort=8.0)
    new = gripper.to_goal(wanted, interface="parallel_gripper_command").command
    assert (list(new.name), list(new.position), list(new.effort)) == (["gripper"], [0.02], [8.0])
    old = gripper.to_goal(wanted, interface="gripper_command").command
    assert (old.position, old.max_effort) == (0.02, 8.0)
