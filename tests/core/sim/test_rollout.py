"""Rollouts: one by one, and many in lock-step."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.sim import (
    TASKS,
    Outcome,
    TabletopEnvironment,
    TabletopSim,
    Task,
    expert_action,
    observe,
    rollout,
    rollout_many,
    sample_task,
)
from fastvla_core.sim.sim import ACTION_NAMES
from fastvla_core.types import ActionChunk, Observation


def chunk_of(observation: Observation, positions: np.ndarray) -> ActionChunk:
    return ActionChunk(
        stamp_ns=observation.stamp_ns, chunk_id=0, names=ACTION_NAMES, dt_s=0.1, positions=positions
    )


def wander(observation: Observation) -> ActionChunk:
    """Depends on every pixel, so that equal results mean equal observations."""
    phase = sum(float(image.mean()) for image in observation.images.values())
    steps = np.outer(np.arange(1, 9), np.append(0.02 * np.sin(phase * np.arange(1, 7)), 0.0))
    return chunk_of(observation, observation.state + steps)


def test_many_give_the_same_results_as_one_by_one(tabletop: TabletopEnvironment) -> None:
    jobs = [(sample_task(kind, seed), seed) for seed, kind in enumerate(TASKS)]
    singly = [rollout(tabletop, task, seed, wander, horizon=12) for task, seed in jobs]
    batches: list[int] = []

    def wander_all(observations: list[Observation]) -> list[ActionChunk]:
        batches.append(len(observations))
        return [wander(observation) for observation in observations]

    assert rollout_many(wander_all, jobs, n_parallel=2, horizon=12) == singly
    assert max(batches) == 2


@pytest.mark.parametrize("execute", [1, 2])
def test_an_expert_in_the_policy_s_place_succeeds(
    tabletop: TabletopEnvironment, execute: int
) -> None:
    task = Task(kind="reach", target="blue")

    def policy(observation: Observation) -> ActionChunk:
        return chunk_of(observation, expert_action(tabletop.sim, task)[None].repeat(8, axis=0))

    result = rollout(tabletop, task, 11, policy, execute=execute)
    assert result.outcome is Outcome.SUCCESS
    assert result.time_s == pytest.approx(result.ticks * 0.1)
    assert result.ticks < 20


def test_time_runs_out(tabletop: TabletopEnvironment) -> None:
    def stay(observation: Observation) -> ActionChunk:
        return chunk_of(observation, np.tile(observation.state.astype(float), (8, 1)))

    result = rollout(tabletop, Task(kind="pick", target="red"), 0, stay, horizon=7)
    assert (result.outcome, result.ticks) == (Outcome.UNKNOWN, 7)


def test_the_observation_holds_what_the_policy_may_know(sim: TabletopSim) -> None:
    task = Task(kind="push", target="red", instruction="shove the red box aside")
    sim.reset(1)
    observation = observe(sim, task)
    assert observation.task == "shove the red box aside"
    assert set(observation.images) == {"front", "wrist"}
    np.testing.assert_array_equal(observation.state, sim.state())
