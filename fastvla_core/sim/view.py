"""What the expert looks at: the hand, the cube to act on, and where it should go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.kinematics import tool_yaw
from fastvla_core.sim.layout import BOWL_RADIUS_M, CUBE_HALF_M
from fastvla_core.sim.sim import SceneObject, TabletopSim
from fastvla_core.sim.tasks import COLOURS, Task

# A finger this near to where the cube must be touches it.
_TOUCHING_M = 0.0012
# How far a held cube's middle may be from the tool, level and in height: it still has a good part
# of the pads, which are 24 mm wide and reach from 15 mm below the tool to 35 above.
_HELD_M = 0.024
_HELD_HEIGHT_M = 0.028

# How far the middle of an open finger is from the middle of the hand.
_FINGER_M = 0.047


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the expert sees: the hand, the cube to act on, and where it should go."""

    tcp: NDArray[np.float64]
    yaw: float
    gap: float
    cube: SceneObject
    others: tuple[SceneObject, ...]
    bowl: NDArray[np.float64]
    goal: NDArray[np.float64]

    @property
    def to_cube(self) -> NDArray[np.float64]:
        """From the tool to the cube [m]."""
        return self.cube.position - self.tcp

    @property
    def turn_to_cube(self) -> float:
        """Turn [rad] that aligns the fingers with two faces of the cube: the smallest that fits."""
        # Any face may lie on the table: the edge that is most level shows the heading.
        level = int(np.argmin(np.abs(self.cube.rotation[2])))
        heading = np.arctan2(self.cube.rotation[1, level], self.cube.rotation[0, level])
        turn = float((heading - self.yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)
        other = turn - np.copysign(np.pi / 2, turn)
        return other if self._is_blocked(turn) and not self._is_blocked(other) else turn

    def _is_blocked(self, turn: float) -> bool:
        """Whether an open finger would come down on another cube or on the bowl."""
        angle = self.yaw + turn
        jaws = _FINGER_M * np.array([-np.sin(angle), np.cos(angle)])
        cube = self.cube.position[:2]
        fingers = np.array([cube + jaws, cube - jaws])
        obstacles = [(other.position[:2], 0.036) for other in self.others]
        return any(
            np.linalg.norm(fingers - centre, axis=1).min() < clearance
            for centre, clearance in [*obstacles, (self.bowl[:2], BOWL_RADIUS_M + 0.015)]
        )

    @property
    def is_centred(self) -> bool:
        """Whether the cube is straight below the fingers, which centre it along the jaws."""
        jaws = np.array([-np.sin(self.yaw), np.cos(self.yaw)])
        along = float(jaws @ self.to_cube[:2])
        across = float(np.hypot(*(self.to_cube[:2] - along * jaws)))
        return abs(along) < 0.015 and across < 0.012

    @property
    def is_holding(self) -> bool:
        """Whether the cube is between fingers that touch it, by its faces or by its edges."""
        offset = self.to_cube
        turn = self.turn_to_cube
        half_width = CUBE_HALF_M * (abs(np.cos(turn)) + abs(np.sin(turn)))
        return bool(
            np.hypot(*offset[:2]) < _HELD_M
            and abs(offset[2]) < _HELD_HEIGHT_M
            and self.gap < half_width + _TOUCHING_M
        )

    @property
    def is_around_cube(self) -> bool:
        """Whether the fingers, however far open, are still on both sides of the cube."""
        return bool(np.hypot(*self.to_cube[:2]) < 0.03 and abs(self.to_cube[2]) < 0.025)


def look(sim: TabletopSim, task: Task) -> Scene:
    """The scene as it is now, with `task` in mind."""
    goal = sim.bowl if task.reference is None else sim.cube(task.reference)
    return Scene(
        tcp=sim.tcp,
        yaw=tool_yaw(sim.joints),
        gap=sim.finger_gap,
        cube=sim.cube(task.target),
        others=tuple(sim.cube(colour) for colour in COLOURS if colour != task.target),
        bowl=sim.bowl.position,
        goal=goal.position,
    )
