"""Decides from the simulator's own knowledge whether a task is done, and with the right cube."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from itertools import permutations

import numpy as np

from fastvla_core.sim.layout import CUBE_HALF_M
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tasks import COLOURS, Colour, Task

REACH_ABOVE_M = 0.05
REACH_TOLERANCE_M = 0.025
LIFTED_M = 0.08
PUSHED_M = 0.05

_REST_SPEED_M_S = 0.03
_OUT_OF_REACH_M = 0.52
_TICKS_HELD = {"reach": 1, "pick": 1, "place": 2, "stack": 3, "push": 1, "hold": 10}


class Outcome(Enum):
    """How an episode stands."""

    UNKNOWN = "unknown"
    SUCCESS = "success"
    WRONG_OBJECT = "wrong_object"
    FAILED = "failed"


class TaskMonitor:
    """Watches one episode; made right after the reset, then `update` once per tick.

    The first decision stands: what happens afterwards does not change the outcome.
    """

    def __init__(self, sim: TabletopSim, task: Task) -> None:
        self._sim = sim
        self._task = task
        self._start = {colour: sim.cube(colour).position for colour in COLOURS}
        self._ticks: dict[Hashable, int] = {}
        self._outcome = Outcome.UNKNOWN

    @property
    def outcome(self) -> Outcome:
        """What the last `update` said."""
        return self._outcome

    def update(self) -> Outcome:
        """Look at the scene as it is now."""
        if self._outcome is Outcome.UNKNOWN:
            self._outcome = self._judge()
        return self._outcome

    def target_fulfilled(self) -> bool:
        """Whether the task is done at this very instant, whatever went wrong before."""
        return self._wanted() in self._fulfilled()

    def _judge(self) -> Outcome:
        fulfilled = self._fulfilled()
        self._ticks = {key: self._ticks.get(key, 0) + 1 for key in fulfilled}
        needed = _TICKS_HELD[self._task.kind]
        lasting = {key for key, ticks in self._ticks.items() if ticks >= needed}
        if self._wanted() in lasting:
            return Outcome.SUCCESS
        if lasting or (self._task.kind == "push" and self._moved_another()):
            return Outcome.WRONG_OBJECT
        return Outcome.FAILED if self._is_lost() else Outcome.UNKNOWN

    def _wanted(self) -> Hashable:
        if self._task.kind == "stack":
            return (self._task.target, self._task.reference)
        return self._task.target

    def _fulfilled(self) -> set[Hashable]:
        if self._task.kind == "stack":
            return {pair for pair in permutations(COLOURS, 2) if self._is_stacked(*pair)}
        test = getattr(self, f"_is_{self._task.kind}_done")
        return {colour for colour in COLOURS if test(colour)}

    def _is_reach_done(self, colour: Colour) -> bool:
        above = self._sim.cube(colour).position + np.array([0.0, 0.0, REACH_ABOVE_M])
        return bool(np.linalg.norm(self._sim.tcp - above) < REACH_TOLERANCE_M)

    def _is_pick_done(self, colour: Colour) -> bool:
        return self._sim.cube(colour).position[2] > LIFTED_M and self._sim.is_touched(colour)

    def _is_place_done(self, colour: Colour) -> bool:
        cube, bowl = self._sim.cube(colour), self._sim.bowl
        offset = cube.position - bowl.position
        inside = np.hypot(*offset[:2]) < 0.04 and offset[2] < 0.042
        return bool(inside) and self._is_left_alone(colour)

    def _is_hold_done(self, colour: Colour) -> bool:
        offset = self._sim.cube(colour).position - self._sim.bowl.position
        above = np.hypot(*offset[:2]) < 0.04 and offset[2] > 0.05
        return bool(above) and self._sim.is_touched(colour)

    def _is_stacked(self, upper: Colour, lower: Colour) -> bool:
        offset = self._sim.cube(upper).position - self._sim.cube(lower).position
        on_top = np.hypot(*offset[:2]) < 0.02 and abs(offset[2] - 2 * CUBE_HALF_M) < 0.006
        return bool(on_top) and self._is_left_alone(upper)

    def _is_left_alone(self, colour: Colour) -> bool:
        return self._sim.cube(colour).speed < _REST_SPEED_M_S and not self._sim.is_touched(colour)

    def _is_push_done(self, colour: Colour) -> bool:
        cube = self._sim.cube(colour)
        sideways = abs(cube.position[1] - self._start[colour][1])
        flat = np.abs(cube.rotation[2]).max() > 0.95
        on_table = abs(cube.position[2] - CUBE_HALF_M) < 0.008
        return bool(sideways >= PUSHED_M and flat and on_table)

    def _moved_another(self) -> bool:
        others: list[Colour] = [colour for colour in COLOURS if colour != self._task.target]
        return any(
            np.linalg.norm(self._sim.cube(colour).position - self._start[colour]) >= PUSHED_M
            for colour in others
        )

    def _is_lost(self) -> bool:
        position = self._sim.cube(self._task.target).position
        was_lifted = self._task.kind == "push" and position[2] > 2 * CUBE_HALF_M
        return bool(was_lifted or np.hypot(*position[:2]) > _OUT_OF_REACH_M)
