"""Closed loop in the simulator over many seeds: success, wrong objects, and how sure that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastvla_core.errors import ObservationError, SimError
from fastvla_core.policy import FastVLA, Quantization
from fastvla_core.sim.instructions import instruction
from fastvla_core.sim.monitor import Outcome
from fastvla_core.sim.rollout import EpisodeResult, rollout_many
from fastvla_core.sim.tasks import Task, TaskKind, sample_task
from fastvla_core.types import ActionChunk, Observation
from training.statistics import wilson_interval
from training.workers import worker_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated.

    Attributes:
        policy: Checkpoint folder or shipped name.
        seeds: First seed and the one after the last.
        paraphrase: Use the instructions that no training run has seen.
        masked_cameras: Cameras that are taken away from the policy.
        parallel: Simulators in lock-step per process; inference is batched over them.
    """

    policy: str
    task: TaskKind
    seeds: tuple[int, int]
    quantization: Quantization | None = None
    paraphrase: bool = False
    masked_cameras: tuple[str, ...] = ()
    parallel: int = 16
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """Counts over all seeds, and the interval of the success rate."""

    task: str
    episodes: int
    successes: int
    wrong_object: int
    success_rate: float
    interval: tuple[float, float]
    mean_time_s: float
    failed_seeds: tuple[int, ...]
    wall_s: float


def evaluation_task(kind: TaskKind, seed: int, *, paraphrase: bool) -> Task:
    """The task of one seed: its colours and its words follow the seed."""
    task = sample_task(kind, seed)
    if not paraphrase:
        return task
    words = instruction(task, np.random.default_rng([seed, 11]), held_out=True)
    return Task(kind=kind, target=task.target, reference=task.reference, instruction=words)


def evaluate(config: EvaluationConfig) -> EvaluationResult:
    """Run every seed once and count.

    Raises:
        CheckpointError: the policy cannot be loaded.
        SimError: there are no seeds, or the simulator cannot start.
        ObservationError: a camera that is to be masked is not the policy's, or none is left.
    """
    first, last = config.seeds
    if not 0 <= first < last:
        raise SimError(
            f"seeds {first}:{last} name no scene", mend="give FIRST:LAST with 0 <= FIRST < LAST"
        )
    seeds = list(range(first, last))
    started = time.perf_counter()
    if config.workers <= 1:
        results = _run_seeds(config, seeds)
    else:
        parts = [seeds[i :: config.workers] for i in range(config.workers)]
        with worker_pool(config.workers) as pool:
            jobs = [pool.submit(_run_seeds, config, part) for part in parts if part]
            results = [result for job in jobs for result in job.result()]
    results.sort(key=lambda pair: pair[0])
    return _summary(config, results, wall_s=time.perf_counter() - started)


def _summary(
    config: EvaluationConfig, results: Sequence[tuple[int, EpisodeResult]], *, wall_s: float
) -> EvaluationResult:
    won = [(s, r) for s, r in results if r.outcome is Outcome.SUCCESS]
    wrong = sum(r.outcome is Outcome.WRONG_OBJECT for _, r in results)
    won_seeds = {seed for seed, _ in won}
    return EvaluationResult(
        task=config.task,
        episodes=len(results),
        successes=len(won),
        wrong_object=wrong,
        success_rate=len(won) / len(results),
        interval=wilson_interval(len(won), len(results)),
        mean_time_s=float(np.mean([r.time_s for _, r in won])) if won else float("nan"),
        failed_seeds=tuple(seed for seed, _ in results if seed not in won_seeds),
        wall_s=wall_s,
    )


def _run_seeds(config: EvaluationConfig, seeds: list[int]) -> list[tuple[int, EpisodeResult]]:
    import torch

    torch.set_num_threads(1)
    policy = FastVLA.from_pretrained(config.policy, quantization=config.quantization)
    for camera in config.masked_cameras:
        if camera not in policy.config.cameras:
            raise ObservationError(
                f"the policy has no camera '{camera}' to mask",
                mend=f"one of {', '.join(policy.config.cameras)}",
            )
    episodes = [(evaluation_task(config.task, s, paraphrase=config.paraphrase), s) for s in seeds]
    results = rollout_many(
        _masked(policy.infer_batch, config.masked_cameras),
        episodes,
        n_parallel=min(config.parallel, len(seeds)),
        execute=policy.config.n_action_steps,
    )
    return list(zip(seeds, results))


BatchPolicy = Callable[[list[Observation]], list[ActionChunk]]


def _masked(infer: BatchPolicy, cameras: tuple[str, ...]) -> BatchPolicy:
    if not cameras:
        return infer

    def without(observations: list[Observation]) -> list[ActionChunk]:
        return infer([observation.without_cameras(cameras) for observation in observations])

    return without
