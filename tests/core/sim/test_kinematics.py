"""The closed-form kinematics agree with themselves and with the scene file."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.sim import TabletopSim
from fastvla_core.sim.kinematics import solve_gripper_down, tool_position, tool_yaw

POINTS = [(0.25, -0.1, 0.02), (0.4, 0.15, 0.12), (0.3, 0.0, 0.25), (0.21, 0.19, 0.016)]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("yaw", [-1.2, 0.0, 0.7])
def test_forward_undoes_inverse(point: tuple[float, float, float], yaw: float) -> None:
    joints = solve_gripper_down(np.array(point), yaw=yaw)
    np.testing.assert_allclose(tool_position(joints), point, atol=1e-9)
    assert tool_yaw(joints) == pytest.approx(yaw)


@pytest.mark.parametrize("point", POINTS)
def test_the_simulated_arm_goes_where_the_kinematics_say(
    sim: TabletopSim, point: tuple[float, float, float]
) -> None:
    sim.reset(0)
    sim.step(np.append(solve_gripper_down(np.array([*point[:2], 0.2]), yaw=0.4), 0.01))
    above = solve_gripper_down(np.array([*point[:2], point[2] + 0.06]), yaw=0.4)
    sim.step(np.append(above, 0.01), duration_s=1.0)
    sim.advance(0.5)
    np.testing.assert_allclose(sim.tcp, [*point[:2], point[2] + 0.06], atol=2e-3)
    np.testing.assert_allclose(tool_position(sim.joints), sim.tcp, atol=1e-6)


def test_a_point_out_of_reach_gives_the_nearest_one_on_the_line() -> None:
    reached = tool_position(solve_gripper_down(np.array([0.9, 0.0, 0.0]), yaw=0.0))
    assert np.hypot(reached[0], reached[2] + 0.13 - 0.12) == pytest.approx(0.499)
