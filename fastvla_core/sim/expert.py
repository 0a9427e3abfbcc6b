"""A scripted expert for every task.

It has no memory: what it does depends on the simulator's present state alone, and on nothing that a
policy could not see. So it can label any state, also those that noise or a policy led to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.kinematics import solve_gripper_down
from fastvla_core.sim.layout import CUBE_HALF_M, free_push_sides
from fastvla_core.sim.monitor import REACH_ABOVE_M
from fastvla_core.sim.sim import OPEN_M, SceneObject, TabletopSim
from fastvla_core.sim.tasks import Task, TaskKind
from fastvla_core.sim.view import Scene, look

CLOSED_M = 0.0

_TRAVEL_M = 0.11
_CARRY_M = 0.125
_PUSH_HEIGHT_M = 0.022
# Farther out is out of reach, and out of the front camera's sight.
_PUSH_END_M = 0.26
_SLOW_M = 0.03
_FAST_M = 0.04
_TURN_RAD = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Waypoint:
    """Where the hand should go: tool position [m], turn [rad] still to make, finger opening [m]."""

    position: NDArray[np.float64]
    turn: float
    opening: float
    speed_m: float = _SLOW_M


def expert_action(sim: TabletopSim, task: Task) -> NDArray[np.float64]:
    """What a demonstrator would do now for the next 0.1 s.

    Returns:
        Six joint angles [rad] and the opening of one finger [m], float64 [7], absolute.
    """
    scene = look(sim, task)
    way = _PLANS[task.kind](scene)
    motion = way.position - scene.tcp
    distance = float(np.linalg.norm(motion))
    if distance > way.speed_m:
        motion *= way.speed_m / distance
    yaw = scene.yaw + float(np.clip(way.turn, -_TURN_RAD, _TURN_RAD))
    return np.append(solve_gripper_down(scene.tcp + motion, yaw=yaw), way.opening)


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


def _hold(scene: Scene) -> Waypoint:
    if not scene.is_holding:
        return _grasp(scene)
    offset = scene.goal - scene.cube.position
    return _carry(scene, offset, drop_m=0.0, ready=False, clear=-offset[2] > 0.07)


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
    start = np.array([cube[0], cube[1] + side * (contact + 0.02)])
    gap_to_cube = side * behind - contact
    speed = _SLOW_M
    if low and gap_to_cube > -0.012 and abs(across) < 0.025 and gap_to_cube < 0.05:
        # Only a low hand in front of the middle of the face pushes; elsewhere the cube would tip
        # over or turn away.
        may_push = tcp[2] < 0.034 and -side * cube[1] < _PUSH_END_M
        share = max(0.0, 1.0 - abs(across) / 0.015) if may_push else 0.0
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
    "hold": _hold,
}
