"""Every command variant to its message and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import CommandError
from fastvla_core.types import ForwardPositionCommand, GripperCommand, JointTrajectoryCommand
from fastvla_ros.runtime import ensure_ros

ensure_ros()

from fastvla_ros.commands import forward_position, gripper, joint_trajectory  # noqa: E402

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


def test_missing_velocities_are_zero():
    message = joint_trajectory.to_message(command())
    message.points[0].velocities = []
    np.testing.assert_array_equal(joint_trajectory.from_message(message).velocities, np.zeros(3))


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


def test_the_gripper_goal_of_each_interface():
    wanted = GripperCommand(stamp_ns=0, name="gripper", position=0.02, max_effort=8.0)
    new = gripper.to_goal(wanted, interface="parallel_gripper_command").command
    assert (list(new.name), list(new.position), list(new.effort)) == (["gripper"], [0.02], [8.0])
    old = gripper.to_goal(wanted, interface="gripper_command").command
    assert (old.position, old.max_effort) == (0.02, 8.0)
