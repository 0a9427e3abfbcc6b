"""Runs a policy in the simulator and says how each episode ended."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastvla_core.sim.environment import Environment, EpisodeTask
from fastvla_core.sim.monitor import Outcome
from fastvla_core.sim.tabletop import TabletopEnvironment
from fastvla_core.types import ActionChunk, Observation

PolicyFn: TypeAlias = Callable[[Observation], ActionChunk]
PolicyBatchFn: TypeAlias = Callable[[list[Observation]], Sequence[ActionChunk]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode ended; `UNKNOWN` when time ran out. `time_s` is simulated time."""

    task: EpisodeTask
    seed: int
    outcome: Outcome
    ticks: int
    time_s: float


def rollout(
    environment: Environment,
    task: EpisodeTask,
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
        horizon: Number of action steps after which time is up; by default the environment's.
        execute: Steps of each chunk that are carried out before the next inference.
    """
    episode = _Episode(environment, task, seed, horizon=horizon, past_steps=past_steps)
    while not episode.is_over:
        episode.execute(policy_fn(episode.observe()), count=execute)
    return episode.result()


def rollout_many(
    policy_batch_fn: PolicyBatchFn,
    jobs: Iterable[tuple[EpisodeTask, int]],
    *,
    make: Callable[[], Environment] = TabletopEnvironment,
    n_parallel: int = 16,
    horizon: int | None = None,
    execute: int = 2,
    past_steps: int = 0,
) -> list[EpisodeResult]:
    """Run (task, seed) jobs in lock-step, one batched inference for all that are under way.

    Args:
        make: Makes one of the environments that run side by side.
        past_steps: Steps before an observation that the policy reads with it.
    Returns:
        One result per job, in the order of the jobs.
    """
    waiting = list(enumerate(jobs))[::-1]
    idle = [make() for _ in range(min(n_parallel, len(waiting)))]
    environments = tuple(idle)
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
                    idle.append(running.pop(index).environment)
    finally:
        for environment in environments:
            environment.close()
    return [results[index] for index in sorted(results)]


class _Episode:
    """One episode under way."""

    def __init__(
        self,
        environment: Environment,
        task: EpisodeTask,
        seed: int,
        *,
        horizon: int | None,
        past_steps: int,
    ) -> None:
        self.environment = environment
        self._task = task
        self._seed = seed
        self._ticks = 0
        self._past_steps = past_steps
        self._past = deque[Observation](maxlen=past_steps)
        environment.begin(task, seed)
        self._horizon = environment.horizon if horizon is None else horizon

    @property
    def is_over(self) -> bool:
        return self.environment.outcome is not Outcome.UNKNOWN or self._ticks >= self._horizon

    def observe(self) -> Observation:
        return dataclasses.replace(self.environment.observe(), earlier=tuple(self._past))

    def execute(self, chunk: ActionChunk, *, count: int) -> None:
        for target in chunk.positions[:count]:
            if self._past_steps:
                self._past.append(self.environment.observe())
            self.environment.step(target, duration_s=chunk.dt_s)
            self._ticks += 1
            if self.is_over:
                return

    def result(self) -> EpisodeResult:
        return EpisodeResult(
            task=self._task,
            seed=self._seed,
            outcome=self.environment.outcome,
            ticks=self._ticks,
            time_s=self.environment.time_ns / 1e9,
        )
