"""The scripted experts do every task, and the judge tells right from wrong."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.sim import (
    TASK_KINDS,
    TASKS,
    Outcome,
    TabletopSim,
    Task,
    TaskMonitor,
    expert_action,
)
from fastvla_core.sim.expert import CLOSED_M
from fastvla_core.sim.kinematics import solve_gripper_down, tool_yaw
from fastvla_core.sim.layout import CUBE_HALF_M
from fastvla_core.sim.sim import OPEN_M
from fastvla_core.sim.tabletop import HORIZON_TICKS
from fastvla_core.sim.tasks import COLOURS, TaskKind, sample_task
from fastvla_core.sim.view import look


def play(sim: TabletopSim, seed: int, *, does: Task, asked: Task) -> Outcome:
    """Let the expert do one task while the judge expects another."""
    sim.reset(seed)
    monitor = TaskMonitor(sim, asked)
    for _ in range(HORIZON_TICKS[does.kind]):
        before = sim.tcp
        action = expert_action(sim, does)
        assert ((action >= sim.limits[:, 0]) & (action <= sim.limits[:, 1])).all()
        sim.step(action)
        assert np.linalg.norm(sim.tcp - before) < 0.045
        if monitor.update() is not Outcome.UNKNOWN:
            break
    return monitor.outcome


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_the_expert_succeeds(sim: TabletopSim, kind: TaskKind) -> None:
    for seed in range(1000, 1010):
        task = sample_task(kind, seed)
        assert play(sim, seed, does=task, asked=task) is Outcome.SUCCESS, f"seed {seed}"


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_doing_it_with_another_cube_is_the_wrong_object(sim: TabletopSim, kind: TaskKind) -> None:
    for seed in range(1000, 1004):
        does = sample_task(kind, seed)
        other = next(c for c in COLOURS if c not in (does.target, does.reference))
        asked = Task(kind=kind, target=other, reference=does.reference)
        assert play(sim, seed, does=does, asked=asked) is Outcome.WRONG_OBJECT, f"seed {seed}"


def test_stacking_the_wrong_way_round_is_the_wrong_object(sim: TabletopSim) -> None:
    does = Task(kind="stack", target="red", reference="blue")
    asked = Task(kind="stack", target="blue", reference="red")
    assert play(sim, 3, does=does, asked=asked) is Outcome.WRONG_OBJECT


def test_carrying_instead_of_pushing_fails(sim: TabletopSim) -> None:
    pick, push = Task(kind="pick", target="red"), Task(kind="push", target="red")
    assert play(sim, 3, does=pick, asked=push) is Outcome.FAILED


def test_half_a_task_is_no_success(sim: TabletopSim) -> None:
    reach = Task(kind="reach", target="red")
    for kind in ("pick", "place", "push"):
        asked = Task(kind=kind, target="red")
        assert play(sim, 4, does=reach, asked=asked) is Outcome.UNKNOWN


def test_a_cube_held_above_the_bowl_is_not_placed(sim: TabletopSim) -> None:
    task = Task(kind="place", target="green")
    sim.reset(2)
    monitor = TaskMonitor(sim, task)
    while np.hypot(*(sim.cube("green").position - sim.bowl.position)[:2]) > 0.015:
        sim.step(expert_action(sim, task))
        assert monitor.update() is Outcome.UNKNOWN
    held = sim.state()
    for _ in range(5):
        sim.step(held * np.array([1, 1, 1, 1, 1, 1, 0]))
        assert monitor.update() is Outcome.UNKNOWN


def test_the_first_decision_stands(sim: TabletopSim) -> None:
    task = Task(kind="reach", target="red")
    sim.reset(0)
    monitor = TaskMonitor(sim, task)
    while monitor.update() is Outcome.UNKNOWN:
        sim.step(expert_action(sim, task))
    sim.reset(1)
    assert monitor.update() is Outcome.SUCCESS


def test_the_expert_has_no_memory(sim: TabletopSim) -> None:
    task = Task(kind="place", target="blue")
    sim.reset(0)
    for _ in range(12):
        sim.step(expert_action(sim, task))
    wanted = expert_action(sim, task)
    for other in TASKS[:3]:
        expert_action(sim, Task(kind=other, target="red"))
    np.testing.assert_array_equal(expert_action(sim, task), wanted)


def grasp(sim: TabletopSim, task: Task, *, turned: float, beside_m: float) -> None:
    """Close the hand around the task's cube, off its best pose by as much."""
    scene = look(sim, task)
    yaw = tool_yaw(sim.joints) + scene.turn_to_cube + turned
    across = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    place = scene.cube.position + beside_m * across
    for height, opening, ticks in ((0.09, OPEN_M, 15), (0.0, OPEN_M, 8), (0.0, CLOSED_M, 5)):
        target = place + np.array([0.0, 0.0, height])
        for _ in range(ticks):
            sim.step(np.append(solve_gripper_down(target, yaw=yaw), opening))


@pytest.mark.parametrize(
    ("turned", "beside_m"),
    [(0.0, 0.0), (0.0, 0.018), (np.pi / 4, 0.0)],
    ids=["by its faces", "by their rims", "by its edges"],
)
def test_the_expert_goes_on_with_what_it_holds(
    sim: TabletopSim, turned: float, beside_m: float
) -> None:
    """Who opens a hand that holds teaches a policy that cannot see the difference to hesitate."""
    task = Task(kind="pick", target="red")
    sim.reset(0)
    assert not look(sim, task).is_holding
    grasp(sim, task, turned=turned, beside_m=beside_m)
    assert look(sim, task).is_holding
    monitor = TaskMonitor(sim, task)
    while monitor.update() is Outcome.UNKNOWN:
        action = expert_action(sim, task)
        assert action[-1] == CLOSED_M
        sim.step(action)
    assert monitor.outcome is Outcome.SUCCESS


def test_a_hand_closed_beside_a_cube_holds_nothing(sim: TabletopSim) -> None:
    task = Task(kind="pick", target="red")
    sim.reset(0)
    grasp(sim, task, turned=0.0, beside_m=0.036)
    assert not look(sim, task).is_holding


def test_a_hand_that_will_push_comes_down_well_beside_the_cube(sim: TabletopSim) -> None:
    """A fingertip on the edge of a cube tips it over."""
    for seed in range(1000, 1010):
        task = sample_task("push", seed)
        sim.reset(seed)
        while sim.tcp[2] > 0.06:
            sim.step(expert_action(sim, task))
        cube = look(sim, task).cube
        half_width = CUBE_HALF_M * np.abs(cube.rotation[1]).sum()
        assert abs(sim.tcp[1] - cube.position[1]) - half_width > 0.022
