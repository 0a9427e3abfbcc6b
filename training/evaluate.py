"""Closed loop in the simulator over many seeds: success, wrong objects, and how sure that is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fastvla_core.engines.names import EngineChoice
from fastvla_core.errors import ObservationError, SimError
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA, Quantization
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.runtime.merging import ChunkMerge, check_merge
from fastvla_core.sim.catalogue import (
    contract_name,
    make_environment,
    metaworld_task,
    tabletop_kind,
)
from fastvla_core.sim.environment import EpisodeTask
from fastvla_core.sim.instructions import instruction
from fastvla_core.sim.monitor import Outcome
from fastvla_core.sim.rollout import EpisodeResult, rollout, rollout_many
from fastvla_core.sim.tasks import Task, sample_task
from fastvla_core.sim.timed_rollout import TimedResult, Timing, timed_rollouts
from fastvla_core.types import ActionChunk, ChunkPrefix, Observation
from training.statistics import wilson_interval
from training.workers import worker_pool

_SIMULATED_ROBOT = "tabletop"
_Run: TypeAlias = EpisodeResult | TimedResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated.

    Attributes:
        policy: Checkpoint folder or shipped name.
        task: As `fastvla_core.sim.catalogue` knows it.
        seeds: First seed and the one after the last.
        paraphrase: Use the instructions that no training run has seen.
        engine: What runs the network; see `FastVLA.use_engine`.
        masked_cameras: Cameras that are taken away from the policy.
        latency_s: Run against the clock, as the policy server does, and let each inference take
            so long. None lets the robot wait for it, and moves it from target to target in
            straight lines.
        chunk_merge: How chunks follow each other against the clock.
        vision_tokens: Which visual tokens are kept and what is reused; None leaves it to the
            checkpoint. What remembers is run episode by episode, without batches.
        parallel: Simulators in lock-step per process; inference is batched over them.
    """

    policy: str
    task: str
    seeds: tuple[int, int]
    quantization: Quantization | None = None
    engine: EngineChoice = "eager"
    paraphrase: bool = False
    masked_cameras: tuple[str, ...] = ()
    latency_s: float | None = None
    chunk_merge: ChunkMerge = "auto"
    vision_tokens: VisionTokens | None = None
    parallel: int = 16
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """Counts over all seeds, and the interval of the success rate.

    Attributes:
        peak_velocity, peak_acceleration: Largest of all setpoints as a share of the contract's
            limit; None without `EvaluationConfig.latency_s`.
    """

    task: str
    episodes: int
    successes: int
    wrong_object: int
    success_rate: float
    interval: tuple[float, float]
    mean_time_s: float
    failed_seeds: tuple[int, ...]
    wall_s: float
    peak_velocity: float | None = None
    peak_acceleration: float | None = None


def evaluation_task(name: str, seed: int, *, paraphrase: bool) -> EpisodeTask:
    """The task of one seed; on the table-top its colours and its words follow the seed.

    Raises:
        SimError: there is no such task, or it has no other words.
    """
    other = metaworld_task(name)
    if other is not None:
        if paraphrase:
            raise SimError(
                f"'{name}' has one sentence: '{other.instruction}'", mend="leave out --paraphrase"
            )
        return other
    task = sample_task(tabletop_kind(name), seed)
    if not paraphrase:
        return task
    words = instruction(task, np.random.default_rng([seed, 11]), held_out=True)
    return dataclasses.replace(task, instruction=words)


def evaluate(config: EvaluationConfig) -> EvaluationResult:
    """Run every seed once and count.

    Raises:
        CheckpointError: the policy cannot be loaded.
        ContractError: it is another robot's than the task.
        SimError: there is no such task, there are no seeds, the simulator cannot start, or it
            cannot do what is asked of it.
        DependencyError: the simulator is not installed.
        ObservationError: a camera that is to be masked is not the policy's, or none is left; or
            the policy reads what the simulator cannot show.
        PolicyError: the policy's chunks cannot be merged in that way.
    """
    first, last = config.seeds
    if not 0 <= first < last:
        raise SimError(
            f"seeds {first}:{last} name no scene", mend="give FIRST:LAST with 0 <= FIRST < LAST"
        )
    evaluation_task(config.task, first, paraphrase=config.paraphrase)
    if config.latency_s is not None and contract_name(config.task) != _SIMULATED_ROBOT:
        raise SimError(
            f"'{config.task}' cannot be run against the clock: only the table-top's tasks can",
            mend="leave out the latency",
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
    config: EvaluationConfig, runs: Sequence[tuple[int, _Run]], *, wall_s: float
) -> EvaluationResult:
    results = [(seed, run.episode if isinstance(run, TimedResult) else run) for seed, run in runs]
    timed = [run for _, run in runs if isinstance(run, TimedResult)]
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
        peak_velocity=max((run.peak_velocity for run in timed), default=None),
        peak_acceleration=max((run.peak_acceleration for run in timed), default=None),
    )


def _run_seeds(config: EvaluationConfig, seeds: list[int]) -> list[tuple[int, _Run]]:
    import torch

    torch.set_num_threads(1)
    robot = contract_name(config.task)
    policy = FastVLA.from_pretrained(
        config.policy,
        quantization=config.quantization,
        engine=config.engine,
        vision_tokens=config.vision_tokens,
        contract=None if robot == _SIMULATED_ROBOT else load_contract(robot),
    )
    for camera in config.masked_cameras:
        if camera not in policy.config.cameras:
            raise ObservationError(
                f"the policy has no camera '{camera}' to mask",
                mend=f"one of {', '.join(policy.config.cameras)}",
            )
    episodes = [(evaluation_task(config.task, s, paraphrase=config.paraphrase), s) for s in seeds]

    def infer(
        observations: list[Observation], prefixes: list[ChunkPrefix | None] | None = None
    ) -> list[ActionChunk]:
        seen = [observation.without_cameras(config.masked_cameras) for observation in observations]
        if policy.vision_tokens.remembers:
            (prefix,) = prefixes or (None,)
            return [policy.infer(seen[0], prefix=prefix)]
        return policy.infer_batch(seen, prefixes=prefixes)

    run = _run_one_by_one if policy.vision_tokens.remembers else _run_episodes
    return list(zip(seeds, run(config, policy, infer, episodes)))


def _run_one_by_one(
    config: EvaluationConfig,
    policy: FastVLA,
    infer: Callable[..., list[ActionChunk]],
    episodes: list[tuple[EpisodeTask, int]],
) -> Sequence[_Run]:
    runs: list[_Run] = []
    with contextlib.closing(make_environment(config.task)) as environment:
        for task, seed in episodes:
            policy.reset()
            if config.latency_s is not None:
                runs += _run_episodes(config, policy, infer, [(task, seed)])
                continue
            execute = policy.config.n_action_steps
            runs.append(
                rollout(environment, task, seed, lambda seen: infer([seen])[0], execute=execute)
            )
    return runs


def _run_episodes(
    config: EvaluationConfig,
    policy: FastVLA,
    infer: Callable[..., list[ActionChunk]],
    episodes: list[tuple[EpisodeTask, int]],
) -> Sequence[_Run]:
    parallel, execute = min(config.parallel, len(episodes)), policy.config.n_action_steps
    if config.latency_s is None:
        return rollout_many(
            infer,
            episodes,
            make=functools.partial(make_environment, config.task),
            n_parallel=parallel,
            execute=execute,
            past_steps=len(policy.history_s),
        )
    if policy.history_s:
        raise ObservationError(
            f"{config.policy} reads several moments, which a run against the clock cannot show",
            mend="leave out the latency",
        )
    merge = config.chunk_merge
    check_merge(merge, conditionings=policy.conditionings)
    timing = Timing(
        merge=merge,
        latency_s=config.latency_s,
        execute_steps=execute,
        conditionings=policy.conditionings,
    )
    robot = load_contract(_SIMULATED_ROBOT)
    jobs = [(task, seed) for task, seed in episodes if isinstance(task, Task)]
    return timed_rollouts(infer, jobs, contract=robot, timing=timing, n_parallel=parallel)
