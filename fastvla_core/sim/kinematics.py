"""Closed-form kinematics of the arm while its gripper points straight down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UPPER_ARM_M = 0.25
FOREARM_M = 0.25
SHOULDER_HEIGHT_M = 0.12
HAND_M = 0.13

# A fully stretched arm has no inverse Jacobian; the solution stops just short of it.
_MAX_REACH_M = UPPER_ARM_M + FOREARM_M - 1e-3
_MIN_REACH_M = 0.12


def solve_gripper_down(position: NDArray[np.float64], *, yaw: float) -> NDArray[np.float64]:
    """The six joint angles [rad] that bring the tool centre point to `position`, hand down.

    The nearest reachable point on the line from the shoulder is taken for a point out of reach.

    Args:
        position: Tool centre point [m] in the base frame, float64 [3].
        yaw: Rotation [rad] about the vertical; at 0 the fingers open along y.
    """
    x, y, z = (float(value) for value in position)
    radius = float(np.hypot(x, y))
    height = z + HAND_M - SHOULDER_HEIGHT_M
    distance = float(np.clip(np.hypot(radius, height), _MIN_REACH_M, _MAX_REACH_M))
    cos_elbow = (distance**2 - UPPER_ARM_M**2 - FOREARM_M**2) / (2 * UPPER_ARM_M * FOREARM_M)
    elbow = -np.arccos(np.clip(cos_elbow, -1.0, 1.0))
    cos_lift = (distance**2 + UPPER_ARM_M**2 - FOREARM_M**2) / (2 * UPPER_ARM_M * distance)
    shoulder = np.arctan2(height, radius) + np.arccos(np.clip(cos_lift, -1.0, 1.0))
    base = np.arctan2(y, x)
    return np.array([base, shoulder, elbow, 0.0, -np.pi / 2 - shoulder - elbow, base - yaw])


def tool_position(joints: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the tool centre point is [m], float64 [3], for joint angles [rad] with joint4 at 0."""
    base, shoulder, elbow, _, wrist, _ = (float(value) for value in joints)
    angles = np.cumsum([shoulder, elbow, wrist])
    lengths = np.array([UPPER_ARM_M, FOREARM_M, HAND_M])
    radius = float(lengths @ np.cos(angles))
    height = SHOULDER_HEIGHT_M + float(lengths @ np.sin(angles))
    return np.array([radius * np.cos(base), radius * np.sin(base), height])


def tool_yaw(joints: NDArray[np.floating]) -> float:
    """Rotation of the gripper about the vertical [rad] while it points down."""
    return float(joints[0] - joints[5])
