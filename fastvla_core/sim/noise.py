"""Disturbs a demonstrator's hand, so that demonstrations show how to recover.

Source: DART, arXiv:1703.09327: noise on what is executed, labels stay clean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.kinematics import solve_gripper_down, tool_position, tool_yaw
from fastvla_core.sim.sim import OPEN_M

# Each episode draws its own strength, so that demonstrations reach from clean to shaky.
_DRIFT_M = (0.002, 0.007)
_DRIFT_MEMORY = 0.6
_BUMP_M = 0.03
_BUMP_CHANCE = 0.05
_FLIP_CHANCE = 0.02
# The finger tips are 15 mm below the tool centre point.
_LOWEST_M = 0.016


class HandDrift:
    """Filtered noise on the hand's position, and rare bumps of a few ticks.

    Args:
        strength_m: Range that an episode's noise per tick is drawn from.
        bump_m: Largest bump per axis.
        bump_chance: Per tick.
        starts_bumped: The first tick begins a bump.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        strength_m: tuple[float, float],
        bump_m: float,
        bump_chance: float,
        starts_bumped: bool = False,
    ) -> None:
        self._rng = rng
        self._strength_m = rng.uniform(*strength_m)
        self._bump_m, self._bump_chance = bump_m, bump_chance
        self._drift = np.zeros(3)
        self._bump = np.zeros(3)
        self._bump_ticks = 0
        self._must_bump = starts_bumped

    def offset(self, *, height_m: float) -> NDArray[np.float64]:
        """How far the hand is off its way at the next tick, float64 [3].

        Args:
            height_m: Of the hand above the table.
        """
        rng = self._rng
        self._drift = _DRIFT_MEMORY * self._drift + rng.normal(0.0, self._strength_m, 3)
        if self._must_bump or (self._bump_ticks == 0 and rng.random() < self._bump_chance):
            self._must_bump = False
            self._bump_ticks = int(rng.integers(2, 5))
            self._bump = rng.uniform(-self._bump_m, self._bump_m, 3)
        if self._bump_ticks > 0:
            self._bump_ticks -= 1
            # Close to the table a full bump would only knock over what nobody can set up again.
            share = np.clip((height_m - 0.03) / 0.09, 0.25, 1.0)
            self._drift = self._drift + 0.5 * share * self._bump
        return self._drift


class HandNoise:
    """The table-top's `HandDrift` on the tool's target, and rare flips of the gripper."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._hand = HandDrift(rng, strength_m=_DRIFT_M, bump_m=_BUMP_M, bump_chance=_BUMP_CHANCE)

    def disturb(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """The action that is executed instead; float64 [7], rad and m."""
        position = tool_position(action[:6])
        position += self._hand.offset(height_m=position[2])
        position[2] = max(position[2], _LOWEST_M)
        opening = OPEN_M - action[6] if self._rng.random() < _FLIP_CHANCE else action[6]
        return np.append(solve_gripper_down(position, yaw=tool_yaw(action[:6])), opening)
