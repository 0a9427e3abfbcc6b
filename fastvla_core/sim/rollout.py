"""Runs a policy in the simulator and says how each episode ended."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastvla_core.sim.monitor import Outcome, TaskMonitor
from fastvla_core.sim.rendering import POLICY_CAMERAS
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tasks import Task, TaskKind
from fastvla_core.types import ActionChunk, Observation

PolicyFn: TypeAlias = Callable[[Observation], ActionChunk]
PolicyBatchFn: TypeAlias = Callable[[list[Observation]], Sequence[ActionChunk]]

HORIZON_TICKS: dict[TaskKind, int] = {
    "reach": 50,
    "pick": 60,
    "place": 90,
    "stack": 90,
    "push": 70,
    "hold": 90,
}
"""About three times what the expert needs; a policy that has not succeeded by then has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode ended; `UNKNOWN` when time ran out. `time_s` is simulated time."""

    task: Task
    seed: int
    outcome: Outcome
    ticks: int
    time_s: float


def observe(sim: TabletopSim, task: Task) -> Observation:
    """What the policy gets to see now."""
    return Observation(
        stamp_ns=sim.time_ns,
        task=task.instruction,
        images={camera: sim.render(camera) for camera in POLICY_CAMERAS},
        state=sim.state(),
    )


def rollout(
    sim: TabletopSim,
    task: Task,
    seed: int,
    policy_fn: PolicyFn,
    *,
    horizon: int | None = None,
    execute: int = 2,
    past_steps: int = 0,
) -> EpisodeResult:
    """Let a policy do a task once.

    Args:
        past_steps: Steps before an observation that the policy reads with it.
        horizon: Number of action steps after which time is up; by default `HORIZON_TICKS`.
        execute: Steps of each chunk that are carried out before the next inference.
    """
    episode = _Episode(sim, task, seed, horizon=horizon, past_steps=past_steps)
    while not episode.is_over:
        episode.execute(policy_fn(episode.observe()), count=execute)
    return episode.result()


def rollout_many(
    policy_batch_fn: PolicyBatchFn,
    jobs: Iterable[tuple[Task, int]],
    *,
    n_parallel: int = 16,
    horizon: int | None = None,
    execute: int = 2,
    image_size: int = 96,
    past_steps: int = 0,
) -> list[EpisodeResult]:
    """Run (task, seed) jobs in lock-step, one batched inference for all that are under way.

    Args:
        past_steps: Steps before an observation that the policy reads with it.
    Returns:
        One result per job, in the order of the jobs.
    """
    waiting = list(enumerate(jobs))[::-1]
    idle = [TabletopSim(image_size=image_size) for _ in range(min(n_parallel, len(waiting)))]
    simulators = tuple(idle)
    running: dict[int, _Episode] = {}
    results: dict[int, EpisodeResult] = {}
    try:
        while waiting or running:
            while waiting and idle:
                index, (task, seed) = waiting.pop()
                running[index] = _Episode(
                    idle.pop(), task, seed, horizon=horizon, past_steps=past_steps
                )
            observations = [episode.observe() for episode in running.values()]
            chunks = policy_batch_fn(observations)
            for (index, episode), chunk in zip(list(running.items()), chunks, strict=True):
                episode.execute(chunk, count=execute)
                if episode.is_over:
                    results[index] = episode.result()
                    idle.append(running.pop(index).sim)
    finally:
        for sim in simulators:
            sim.close()
    return [results[index] for index in sorted(results)]


class _Episode:
    """One episode under way."""

    def __init__(
        self, sim: TabletopSim, task: Task, seed: int, *, horizon: int | None, past_steps: int
    ) -> None:
        self.sim = sim
        self.task = task
        self._seed = seed
        self._horizon = HORIZON_TICKS[task.kind] if horizon is None else horizon
        self._ticks = 0
        self._past_steps = past_steps
        self._past = deque[Observation](maxlen=past_steps)
        sim.reset(seed)
        self._monitor = TaskMonitor(sim, task)

    @property
    def is_over(self) -> bool:
        return self._monitor.outcome is not Outcome.UNKNOWN or self._ticks >= self._horizon

    def observe(self) -> Observation:
        return dataclasses.replace(observe(self.sim, self.task), earlier=tuple(self._past))

    def execute(self, chunk: ActionChunk, *, count: int) -> None:
        for target in chunk.positions[:count]:
            if self._past_steps:
                self._past.append(observe(self.sim, self.task))
            self.sim.step(target, duration_s=chunk.dt_s)
            self._ticks += 1
            self._monitor.update()
            if self.is_over:
                return

    def result(self) -> EpisodeResult:
        return EpisodeResult(
            task=self.task,
            seed=self._seed,
            outcome=self._monitor.outcome,
            ticks=self._ticks,
            time_s=self.sim.time_ns / 1e9,
        )
