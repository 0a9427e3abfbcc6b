"""Where cubes and bowl may stand so that every task can be done with every cube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUBE_HALF_M = 0.02
BOWL_RADIUS_M = 0.058
PUSH_SIDES: tuple[int, int] = (-1, 1)

_X_RANGE_M = (0.21, 0.41)
_Y_RANGE_M = (-0.19, 0.19)
_MAX_RADIUS_M = 0.43
# An open hand is 0.1 m wide: it must fit between two cubes, and between a cube and the bowl.
_CUBE_SPACING_M = 0.095
_BOWL_SPACING_M = 0.125
_PUSH_LENGTH_M = 0.08
_PUSHER_STANDOFF_M = 0.048
_PUSHER_REACH_M = 0.475


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Cube poses (x [m], y [m], yaw [rad]), float64 [3, 3], and the bowl's centre, float64 [2]."""

    cubes: NDArray[np.float64]
    bowl: NDArray[np.float64]


def sample_layout(rng: np.random.Generator) -> Layout:
    """A random arrangement in which the gripper fits everywhere and every cube can be pushed."""
    while True:
        points = np.column_stack([rng.uniform(*_X_RANGE_M, 4), rng.uniform(*_Y_RANGE_M, 4)])
        if _is_feasible(points[:3], bowl=points[3]):
            yaws = rng.uniform(-np.pi, np.pi, 3)
            return Layout(cubes=np.column_stack([points[:3], yaws]), bowl=points[3])


def _is_feasible(cubes: NDArray[np.float64], *, bowl: NDArray[np.float64]) -> bool:
    if np.hypot(*np.vstack([cubes, bowl]).T).max() > _MAX_RADIUS_M:
        return False
    if np.linalg.norm(cubes - bowl, axis=1).min() < _BOWL_SPACING_M:
        return False
    pairs = cubes[:, None] - cubes[None]
    if np.linalg.norm(pairs[np.triu_indices(3, k=1)], axis=1).min() < _CUBE_SPACING_M:
        return False
    return all(
        free_push_sides(cubes[i], others=np.delete(cubes, i, axis=0), bowl=bowl) for i in range(3)
    )


def free_push_sides(
    cube: NDArray[np.float64], *, others: NDArray[np.float64], bowl: NDArray[np.float64]
) -> tuple[int, ...]:
    """From which sides (+1: from +y, -1: from -y) a cube can be pushed along y, away from there.

    Args:
        cube: Centre of the cube to push [m], float64 [2].
        others: Centres of the other cubes [m], float64 [N, 2].
        bowl: Centre of the bowl [m], float64 [2].
    """
    return tuple(side for side in PUSH_SIDES if _can_push(cube, side, others, bowl))


def _can_push(
    cube: NDArray[np.float64],
    side: int,
    others: NDArray[np.float64],
    bowl: NDArray[np.float64],
) -> bool:
    pusher = cube + np.array([0.0, side * _PUSHER_STANDOFF_M])
    end = cube - np.array([0.0, side * _PUSH_LENGTH_M])
    if max(np.hypot(*pusher), np.hypot(*end)) > _PUSHER_REACH_M:
        return False
    for centre, size in [*((other, 0.028) for other in others), (bowl, BOWL_RADIUS_M)]:
        across = abs(centre[0] - cube[0])
        behind = side * (centre[1] - cube[1])
        stands_at_pusher = across < size + 0.022 and 0 < behind < _PUSHER_STANDOFF_M + size + 0.02
        stands_in_lane = across < size + 0.030 and 0 < -behind < _PUSH_LENGTH_M + size + 0.03
        if stands_at_pusher or stands_in_lane:
            return False
    return True
