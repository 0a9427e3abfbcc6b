"""The simulated controllers: what a command makes of the targets over time."""

import numpy as np
import pytest

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.nodes.sim_robot_drive import SimDrive

MS = 1_000_000


@pytest.fixture
def drive():
    return SimDrive(load_contract("tabletop"), start=np.zeros(7))


def test_moves_linearly_over_the_duration_and_stays(drive):
    drive.move(["joint1"], [1.0], now_ns=100 * MS, duration_s=0.1)
    assert drive.target(100 * MS)[0] == 0.0
    assert drive.target(150 * MS)[0] == pytest.approx(0.5)
    assert drive.target(900 * MS)[0] == 1.0


def test_a_new_command_starts_from_the_current_target(drive):
    drive.move(["joint1"], [1.0], now_ns=0, duration_s=0.1)
    drive.move(["joint1"], [0.0], now_ns=50 * MS, duration_s=0.1)
    assert drive.target(50 * MS)[0] == pytest.approx(0.5)
    assert drive.target(100 * MS)[0] == pytest.approx(0.25)


def test_joints_are_matched_by_name_and_others_are_left_alone(drive):
    drive.move(["joint3", "joint1"], [-0.3, 0.1], now_ns=0, duration_s=0.0)
    assert drive.target(0).tolist() == [0.1, 0.0, -0.3, 0.0, 0.0, 0.0, 0.0]


def test_the_gripper_moves_at_its_largest_velocity(drive):
    drive.move_gripper("gripper", 0.042, now_ns=0)
    half_way_ns = round(0.021 / 0.6 * 1e9)
    assert drive.target(half_way_ns)[6] == pytest.approx(0.021, abs=1e-6)
    assert drive.target(2 * half_way_ns + MS)[6] == 0.042


@pytest.mark.parametrize(
    ("names", "positions", "message"),
    [
        (["elbow"], [0.1], "unknown joint elbow"),
        (["joint1"], [0.1, 0.2], "1 joints"),
        (["joint1"], [float("nan")], "nan"),
    ],
)
def test_a_bad_command_changes_nothing(drive, names, positions, message):
    with pytest.raises(CommandError, match=message):
        drive.move(names, positions, now_ns=0, duration_s=0.0)
    assert not drive.target(MS).any()


def test_a_velocity_moves_for_its_time_and_no_longer(drive):
    drive.jog(["joint2"], [0.5], now_ns=0, duration_s=0.1)
    assert drive.target(40 * MS)[1] == pytest.approx(0.02)
    drive.jog(["joint2"], [-0.5], now_ns=40 * MS, duration_s=0.1)
    assert drive.target(60 * MS)[1] == pytest.approx(0.01)
    assert drive.target(900 * MS)[1] == pytest.approx(-0.03)


@pytest.mark.parametrize("velocities", [[float("inf")], [0.1, 0.1]])
def test_a_bad_velocity_changes_nothing(drive, velocities):
    with pytest.raises(CommandError, match="has velocities"):
        drive.jog(["joint1"], velocities, now_ns=0, duration_s=0.1)
    assert not drive.target(MS).any()


def test_reset_forgets_commands_that_are_under_way(drive):
    drive.move(["joint1"], [1.0], now_ns=0, duration_s=0.1)
    drive.reset(np.full(7, 0.2))
    assert drive.target(50 * MS).tolist() == [0.2] * 7
