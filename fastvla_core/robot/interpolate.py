"""Values between two samples: joints in a straight line, orientations by the shortest turn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.contract import RobotContract

# Below this angle the sine is too small to divide by, and a straight line is as good.
_SMALL_RAD = 1e-4


def between(
    contract: RobotContract, *, before: NDArray[Any], after: NDArray[Any], weight: NDArray[Any]
) -> NDArray[np.float64]:
    """States or actions between two of the contract's, float64 [..., A].

    Args:
        before, after: [..., A] in the contract's order; rad and m.
        weight: [..., 1], 0 at `before`, 1 at `after`.

    The gripper stays as it was: between open and closed lies nothing that was ever meant.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    value = before * (1.0 - weight) + after * weight
    for columns in contract.orientation_columns:
        group = list(columns)
        value[..., group] = slerp(before[..., group], after[..., group], weight=weight)
    if contract.gripper is not None:
        value[..., -1] = before[..., -1]
    return value


def slerp(
    before: NDArray[np.float64], after: NDArray[np.float64], *, weight: NDArray[Any]
) -> NDArray[np.float64]:
    """Unit quaternions [..., 4] between two, along the shorter of the two arcs.

    Source: Shoemake, Animating rotation with quaternion curves, 1985.
    """
    first = before / np.linalg.norm(before, axis=-1, keepdims=True)
    last = after / np.linalg.norm(after, axis=-1, keepdims=True)
    cosine = np.sum(first * last, axis=-1, keepdims=True)
    last, cosine = np.where(cosine < 0, -last, last), np.abs(cosine)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.where(angle < _SMALL_RAD, 1.0, np.sin(angle))
    left = np.where(angle < _SMALL_RAD, 1.0 - weight, np.sin((1.0 - weight) * angle) / sine)
    right = np.where(angle < _SMALL_RAD, weight, np.sin(weight * angle) / sine)
    turned = left * first + right * last
    return turned / np.linalg.norm(turned, axis=-1, keepdims=True)
