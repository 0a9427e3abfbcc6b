"""Records what the scripted expert does, as a policy would see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.expert import expert_action
from fastvla_core.sim.monitor import TaskMonitor
from fastvla_core.sim.noise import HandNoise
from fastvla_core.sim.rendering import POLICY_CAMERAS
from fastvla_core.sim.rollout import HORIZON_TICKS, PolicyFn, observe
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tasks import Task
from fastvla_core.types import Observation

TICK_S = 0.1

_TICKS_AFTER_SUCCESS = 5
_POLICY_TICKS = (3, 45)
_POLICY_EXECUTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One recorded episode of T ticks of 0.1 s.

    Attributes:
        images: Camera name to uint8 [T, H, W, 3], RGB.
        state: Measured joints [rad] and finger opening [m], float32 [T, 7].
        velocity: Their velocities, float32 [T, 7].
        label: What the expert wants at each tick, float32 [T, 7], absolute.
        executed: What was carried out instead, with noise, float32 [T, 7].
        stamp_ns: Simulated time of each observation, int64 [T].
        success: Whether the task was done in the end.
    """

    instruction: str
    task: Task
    seed: int
    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    velocity: NDArray[np.float32]
    label: NDArray[np.float32]
    executed: NDArray[np.float32]
    stamp_ns: NDArray[np.int64]
    success: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    observation: Observation
    velocity: NDArray[np.float32]
    label: NDArray[np.float64]
    executed: NDArray[np.float64]


def record_demonstration(
    sim: TabletopSim,
    task: Task,
    seed: int,
    *,
    noise: bool = True,
    start_with: PolicyFn | None = None,
    horizon: int | None = None,
) -> Demonstration:
    """Let the expert do a task and record it; the same arguments give the same arrays.

    Args:
        noise: Disturb what is executed; the labels stay what the expert wants.
        start_with: A policy that drives a random number of ticks before the expert takes over, so
            that its mistakes are among the states that get a label. Those ticks are not recorded.
        horizon: Largest number of recorded ticks; by default `HORIZON_TICKS`.
    """
    rng = np.random.default_rng([seed, 3])
    sim.reset(seed)
    if start_with is not None:
        _drive(sim, task, start_with, ticks=int(rng.integers(*_POLICY_TICKS)))
    hand = HandNoise(rng) if noise else None
    monitor = TaskMonitor(sim, task)
    ticks: list[_Tick] = []
    done = 0
    limit = HORIZON_TICKS[task.kind] if horizon is None else horizon
    while len(ticks) < limit and done <= _TICKS_AFTER_SUCCESS:
        ticks.append(_record_tick(sim, task, hand))
        done += monitor.target_fulfilled()
    return _pack(ticks, task=task, seed=seed, success=monitor.target_fulfilled())


def _drive(sim: TabletopSim, task: Task, policy_fn: PolicyFn, *, ticks: int) -> None:
    while ticks > 0:
        chunk = policy_fn(observe(sim, task))
        for target in chunk.positions[: min(_POLICY_EXECUTES, ticks)]:
            sim.step(target, duration_s=chunk.dt_s)
            ticks -= 1


def _record_tick(sim: TabletopSim, task: Task, hand: HandNoise | None) -> _Tick:
    label = expert_action(sim, task)
    executed = label if hand is None else hand.disturb(label)
    tick = _Tick(
        observation=observe(sim, task),
        velocity=sim.joint_velocities(),
        label=label,
        executed=executed,
    )
    sim.step(executed, duration_s=TICK_S)
    return tick


def _pack(ticks: list[_Tick], *, task: Task, seed: int, success: bool) -> Demonstration:
    return Demonstration(
        instruction=task.instruction,
        task=task,
        seed=seed,
        images={
            camera: np.stack([tick.observation.images[camera] for tick in ticks])
            for camera in POLICY_CAMERAS
        },
        state=np.stack([tick.observation.state for tick in ticks]),
        velocity=np.stack([tick.velocity for tick in ticks]),
        label=np.stack([tick.label for tick in ticks]).astype(np.float32),
        executed=np.stack([tick.executed for tick in ticks]).astype(np.float32),
        stamp_ns=np.array([tick.observation.stamp_ns for tick in ticks], dtype=np.int64),
        success=success,
    )
