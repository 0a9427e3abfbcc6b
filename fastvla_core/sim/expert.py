"""A scripted expert for every task.

It has no memory: what it does depends on the simulator's present state alone, and on nothing that a
policy could not see. So it can label any state, also those that noise or a policy led to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.kinematics import solve_gripper_down, tool_yaw
from fastvla_core.sim.layout import BOWL_RADIUS_M, CUBE_HALF_M, free_push_sides
from fastvla_core.sim.monitor import REACH_ABOVE_M
from fastvla_core.sim.sim import OPEN_M, SceneObject, TabletopSim
from fastvla_core.sim.tasks import COLOURS, Task, TaskKind

CLOSED_M = 0.0
HELD_GAP_M = 0.0212
"""A hand this far closed holds the cube that is between its fingers."""

_TRAVEL_M = 0.11
_CARRY_M = 0.125
_PUSH_HEIGHT_M = 0.022
_SLOW_M = 0.03
_FAST_M = 0.04
_TURN_RAD = 0.25
_FINGER_M = 0.047


@dataclass(frozen=True, slots=True, kw_only=True)
class Waypoint:
    """Where the hand should go: tool position [m], turn [rad] still to make, finger opening [m]."""

    position: NDArray[np.float64]
    turn: float
    opening: float
    speed_m: float = _SLOW_M


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
        """Whether the cube is between the closed fingers."""
        offset = self.to_cube
        return bool(
            np.hypot(*offset[:2]) < 0.014 and abs(offset[2]) < 0.016 and self.gap < HELD_GAP_M
        )

    @property
    def is_around_cube(self) -> bool:
        """Whether the fingers, however far open, are still on both sides of the cube."""
        return bool(np.hypot(*self.to_cube[:2]) < 0.03 and abs(self.to_cube[2]) < 0.025)


def expert_action(sim: TabletopSim, task: Task) -> NDArray[np.float64]:
    """What a demonstrator would do now for the next 0.1 s.

    Returns:
        Six joint angles [rad] and the opening of one finger [m], float64 [7], absolute.
    """
    scene = _look(sim, task)
    way = _PLANS[task.kind](scene)
    motion = way.position - scene.tcp
    distance = float(np.linalg.norm(motion))
    if distance > way.speed_m:
        motion *= way.speed_m / distance
    yaw = scene.yaw + float(np.clip(way.turn, -_TURN_RAD, _TURN_RAD))
    return np.append(solve_gripper_down(scene.tcp + motion, yaw=yaw), way.opening)


def _look(sim: TabletopSim, task: Task) -> Scene:
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


def _at(xy: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    return np.array([xy[0], xy[1], z])


def _reach(scene: Scene) -> Waypoint:
    distance = np.hypot(*scene.to_cube[:2])
    cube = scene.cube.position
    height = cube[2] + REACH_ABOVE_M if distance < 0.03 else _TRAVEL_M
    return Waypoint(
        position=_at(cube, height), turn=-scene.yaw, opening=OPEN_M, speed_m=_travel_speed(distance)
    )


def _travel_speed(distance: float) -> float:
    return _FAST_M if distance > 0.05 else _SLOW_M


def _grasp(scene: Scene) -> Waypoint:
    """Go to the cube and close the hand around it."""
    tcp, cube, turn = scene.tcp, scene.cube.position, scene.turn_to_cube
    distance = float(np.hypot(*scene.to_cube[:2]))
    height = tcp[2] - cube[2]
    aligned = abs(turn) < 0.2
    centred = scene.is_centred
    opening, speed = OPEN_M, _SLOW_M
    if centred and abs(height) < 0.012 and (aligned or scene.gap < 0.026):
        position, opening = _at(cube, tcp[2]), CLOSED_M
    elif distance < 0.05 and 0.018 < height < 0.045 and scene.gap < 0.03:
        # Fingers that rest on top of a cube cannot open while they are pressed against it.
        position = _at(tcp, tcp[2] + 0.03)
    elif centred and (aligned or height < 0.03):
        position = cube
    elif distance < 0.03:
        position = _at(cube, max(tcp[2], cube[2] + 0.03) if height < 0.03 else cube[2] + 0.04)
    elif height < 0.05:
        # Rise before travelling: the open fingers would sweep cubes along.
        position = _at(tcp, _TRAVEL_M)
    else:
        position, speed = _at(cube, cube[2] + 0.09), _travel_speed(distance)
    return Waypoint(position=position, turn=turn, opening=opening, speed_m=speed)


def _pick(scene: Scene) -> Waypoint:
    if scene.is_holding:
        return Waypoint(position=_at(scene.tcp, 0.2), turn=0.0, opening=CLOSED_M)
    return _grasp(scene)


def _place(scene: Scene) -> Waypoint:
    offset = scene.goal - scene.cube.position
    distance = float(np.hypot(*offset[:2]))
    height = -offset[2]
    if distance < 0.035 and (not scene.is_holding or height < 0.053):
        return _let_go(scene)
    if not scene.is_holding:
        return _grasp(scene)
    return _carry(scene, offset, drop_m=0.047, ready=distance < 0.012, clear=height > 0.07)


def _stack(scene: Scene) -> Waypoint:
    offset = scene.goal - scene.cube.position
    distance = float(np.hypot(*offset[:2]))
    height = -offset[2]
    if distance < 0.016 and 0.034 < height < (0.0415 if scene.is_holding else 0.047):
        return _let_go(scene)
    if not scene.is_holding:
        return _grasp(scene)
    ready = distance < (0.010 if height > 0.06 else 0.015)
    return _carry(scene, offset, drop_m=0.0402, ready=ready, clear=height > 0.058)


def _let_go(scene: Scene) -> Waypoint:
    """Open the hand; rise straight up once it no longer touches the cube."""
    still_around = scene.is_around_cube and scene.gap < 0.03
    position = scene.tcp if still_around else _at(scene.tcp, 0.16)
    return Waypoint(position=position, turn=0.0, opening=OPEN_M)


def _carry(
    scene: Scene, offset: NDArray[np.float64], *, drop_m: float, ready: bool, clear: bool
) -> Waypoint:
    """Bring the held cube over the goal and down to `drop_m` above it.

    Args:
        offset: From the cube to the goal [m].
        ready: The cube is so well above the goal that it may go down.
        clear: The cube is so high that it may travel.
    """
    above = scene.tcp + offset
    speed = _SLOW_M
    if ready:
        position = _at(above, above[2] + drop_m)
        speed = 0.02 if position[2] > scene.tcp[2] - 0.02 else _SLOW_M
    elif clear:
        position, speed = _at(above, _CARRY_M), _travel_speed(float(np.hypot(*offset[:2])))
    else:
        position = _at(scene.tcp, _CARRY_M)
    return Waypoint(position=position, turn=0.0, opening=CLOSED_M, speed_m=speed)


def _push(scene: Scene) -> Waypoint:
    tcp, cube = scene.tcp, scene.cube.position
    across, behind = tcp[0] - cube[0], tcp[1] - cube[1]
    low = tcp[2] < 0.05
    side = _push_side(scene, committed=low and abs(across) < 0.03 and 0.015 < abs(behind) < 0.09)
    contact = _half_width(scene.cube) + 0.009
    start = np.array([cube[0], cube[1] + side * (contact + 0.014)])
    gap_to_cube = side * behind - contact
    speed = _SLOW_M
    if low and gap_to_cube > -0.012 and abs(across) < 0.025 and gap_to_cube < 0.05:
        # Only a low hand in front of the middle of the face pushes; elsewhere the cube would tip
        # over or turn away.
        share = max(0.0, 1.0 - abs(across) / 0.015) if tcp[2] < 0.034 else 0.0
        position = np.array([cube[0], tcp[1] - side * 0.03 * share, _PUSH_HEIGHT_M])
    elif np.hypot(*(start - tcp[:2])) < 0.012:
        position = _at(start, _PUSH_HEIGHT_M)
    elif np.hypot(*(start - tcp[:2])) > 0.03 and tcp[2] < 0.065:
        position = _at(tcp, 0.09)
    else:
        position, speed = _at(start, 0.09), _travel_speed(float(np.hypot(*(start - tcp[:2]))))
    return Waypoint(position=position, turn=-scene.yaw, opening=CLOSED_M, speed_m=speed)


def _push_side(scene: Scene, *, committed: bool) -> int:
    """+1 to push from +y, -1 from -y: the side the hand is on, unless only the other is free."""
    here = 1 if scene.tcp[1] >= scene.cube.position[1] else -1
    if committed:
        return here
    free = free_push_sides(
        scene.cube.position[:2],
        others=np.array([other.position[:2] for other in scene.others]),
        bowl=scene.bowl[:2],
    )
    return here if here in free or not free else free[0]


def _half_width(cube: SceneObject) -> float:
    """Half of the cube's extent along y [m], for any yaw."""
    return float(CUBE_HALF_M * np.abs(cube.rotation[1]).sum())


_PLANS: dict[TaskKind, Callable[[Scene], Waypoint]] = {
    "reach": _reach,
    "pick": _pick,
    "place": _place,
    "stack": _stack,
    "push": _push,
}
