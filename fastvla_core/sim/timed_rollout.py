"""Closed loop against the clock: inference takes time, and the robot moves on meanwhile.

Setpoints come from the policy server's own `ChunkExecutor`, at the control rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.limits import motion_limits
from fastvla_core.runtime.chunking import ChunkExecutor
from fastvla_core.runtime.merging import ChunkMerge
from fastvla_core.sim.monitor import Outcome, TaskMonitor
from fastvla_core.sim.rollout import EpisodeResult
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tabletop import HORIZON_TICKS, observe
from fastvla_core.sim.tasks import Task
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning, Observation

PrefixedPolicyFn: TypeAlias = Callable[
    [list[Observation], list[ChunkPrefix | None]], Sequence[ActionChunk]
]
"""Chunks for a batch of observations; each has to agree with its prefix."""

_JUDGE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How a policy is run.

    Attributes:
        merge: How chunks follow each other.
        latency_s: From an observation to its chunk.
        execute_steps: Action steps from one observation to the next, when inference keeps up.
        conditionings: How the policy can be told what is planned.
    """

    merge: ChunkMerge
    latency_s: float
    execute_steps: int = 2
    conditionings: tuple[Conditioning, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedResult:
    """How one episode ended, and how it moved; waiting does not count towards its time limit.

    Attributes:
        peak_velocity, peak_acceleration: Of the setpoints by finite differences at the control
            rate, as a share of the contract's limit; the largest of all joints and times.
    """

    episode: EpisodeResult
    peak_velocity: float
    peak_acceleration: float


def timed_rollouts(
    policy_fn: PrefixedPolicyFn,
    jobs: Iterable[tuple[Task, int]],
    *,
    contract: RobotContract,
    timing: Timing,
    n_parallel: int = 16,
) -> list[TimedResult]:
    """Run (task, seed) jobs, one batched inference per control tick for all that are due.

    Returns:
        One result per job, in the order of the jobs.
    """
    waiting = list(enumerate(jobs))[::-1]
    idle = [TabletopSim() for _ in range(min(n_parallel, len(waiting)))]
    simulators = tuple(idle)
    running: dict[int, _Run] = {}
    results: dict[int, TimedResult] = {}
    try:
        while waiting or running:
            while waiting and idle:
                index, (task, seed) = waiting.pop()
                running[index] = _Run(idle.pop(), task, seed, contract=contract, timing=timing)
            due = [run for run in running.values() if run.wants_inference()]
            asked = [run.ask() for run in due]
            chunks = policy_fn([o for o, _ in asked], [p for _, p in asked]) if asked else []
            for run, chunk in zip(due, chunks, strict=True):
                run.answer(chunk)
            for index, run in list(running.items()):
                run.move()
                if run.is_over:
                    results[index] = run.result()
                    idle.append(running.pop(index).sim)
    finally:
        for sim in simulators:
            sim.close()
    return [results[index] for index in sorted(results)]


class _Run:
    """One episode under way; `wants_inference`, `ask`, `answer` and `move` make a control tick."""

    def __init__(
        self, sim: TabletopSim, task: Task, seed: int, *, contract: RobotContract, timing: Timing
    ) -> None:
        sim.reset(seed)
        self.sim, self._task, self._seed, self._timing = sim, task, seed, timing
        self._contract = contract
        self._monitor = TaskMonitor(sim, task)
        self._judge_every = max(1, round(_JUDGE_S * contract.control_rate_hz))
        self._executor = ChunkExecutor(
            contract,
            merge=timing.merge,
            execute_steps=timing.execute_steps,
            conditionings=timing.conditionings,
        )
        rest = sim.state().astype(np.float64)
        self._executor.reset(rest)
        self._setpoints: list[NDArray[np.float64]] = [rest, rest]
        self._pending: tuple[int, ActionChunk] | None = None
        self._ticks = self._moving = 0

    @property
    def _period_s(self) -> float:
        return 1.0 / self._contract.control_rate_hz

    @property
    def _now_ns(self) -> int:
        return round(self._ticks * self._period_s * 1e9)

    @property
    def is_over(self) -> bool:
        limit_s = HORIZON_TICKS[self._task.kind] * _JUDGE_S
        decided = self._monitor.outcome is not Outcome.UNKNOWN
        return decided or self._moving * self._period_s >= limit_s - 1e-9

    def wants_inference(self) -> bool:
        """Take over what has been inferred, then say whether it is time for the next."""
        self._take_over()
        due_ns = self._executor.due_ns
        return self._pending is None and (due_ns is None or self.sim.time_ns >= due_ns)

    def ask(self) -> tuple[Observation, ChunkPrefix | None]:
        seen = observe(self.sim, self._task)
        return seen, self._executor.prefix(seen.stamp_ns)

    def answer(self, chunk: ActionChunk) -> None:
        self._pending = self._now_ns + round(self._timing.latency_s * 1e9), chunk
        self._take_over()

    def move(self) -> None:
        period_s = self._period_s
        setpoint = self._executor.sample(self._now_ns + round(period_s * 1e9))
        # Who only waits for an inference is slow, but does not fail for it.
        self._moving += not (self._pending and self._executor.exhausted(self._now_ns))
        if setpoint is not None:
            self.sim.set_target(setpoint.positions, over_s=period_s)
            self._setpoints.append(setpoint.positions)
        self.sim.advance(period_s)
        self._ticks += 1
        if self._ticks % self._judge_every == 0:
            self._monitor.update()

    def result(self) -> TimedResult:
        velocity = np.diff(self._setpoints, axis=0) / self._period_s
        acceleration = np.diff(velocity, axis=0) / self._period_s
        limits = motion_limits(self._contract)
        return TimedResult(
            episode=EpisodeResult(
                task=self._task,
                seed=self._seed,
                outcome=self._monitor.outcome,
                ticks=self._ticks,
                time_s=self.sim.time_ns / 1e9,
            ),
            peak_velocity=float((np.abs(velocity) / limits.velocity).max()),
            peak_acceleration=float((np.abs(acceleration) / limits.acceleration).max()),
        )

    def _take_over(self) -> None:
        if self._pending is not None and self._now_ns >= self._pending[0]:
            self._executor.submit(self._pending[1], now_ns=self._now_ns)
            self._pending = None
