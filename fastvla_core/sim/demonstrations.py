"""Records what the scripted expert does, as a policy would see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.environment import Disturbance, Environment, EpisodeTask
from fastvla_core.sim.rollout import PolicyFn
from fastvla_core.types import Observation

_POLICY_EXECUTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One recorded episode of T ticks.

    Attributes:
        tick_s: Time from one tick to the next.
        images: Camera name to uint8 [T, H, W, 3], RGB.
        state: Measured joints [rad] and finger opening [m], float32 [T, S].
        velocity: Their velocities, float32 [T, S]; None where the simulator does not tell them.
        label: What the expert wants at each tick, float32 [T, A], absolute.
        executed: What was carried out instead, with noise, float32 [T, A].
        stamp_ns: Simulated time of each observation, int64 [T].
        success: Whether the task was done in the end.
    """

    instruction: str
    task: EpisodeTask
    seed: int
    tick_s: float
    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    velocity: NDArray[np.float32] | None
    label: NDArray[np.float32]
    executed: NDArray[np.float32]
    stamp_ns: NDArray[np.int64]
    success: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    observation: Observation
    velocity: NDArray[np.float32] | None
    label: NDArray[np.float64]
    executed: NDArray[np.float64]


def record_demonstration(
    environment: Environment,
    task: EpisodeTask,
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
        horizon: Largest number of recorded ticks; by default the environment's.
    """
    rng = np.random.default_rng([seed, 3])
    environment.begin(task, seed)
    if start_with is not None:
        _drive(environment, start_with, ticks=int(rng.integers(*environment.drive_ticks)))
        environment.watch()
    disturb = environment.disturbance(rng) if noise else None
    ticks: list[_Tick] = []
    done = 0
    limit = environment.horizon if horizon is None else horizon
    while len(ticks) < limit and done <= environment.linger_ticks:
        ticks.append(_record_tick(environment, disturb))
        done += environment.is_fulfilled
    return _pack(
        ticks,
        task=task,
        seed=seed,
        tick_s=environment.tick_s,
        success=environment.is_fulfilled,
    )


def _drive(environment: Environment, policy_fn: PolicyFn, *, ticks: int) -> None:
    while ticks > 0:
        chunk = policy_fn(environment.observe())
        for target in chunk.positions[: min(_POLICY_EXECUTES, ticks)]:
            environment.step(target, duration_s=chunk.dt_s)
            ticks -= 1


def _record_tick(environment: Environment, disturb: Disturbance | None) -> _Tick:
    label = environment.expert_target()
    executed = label if disturb is None else disturb(label)
    tick = _Tick(
        observation=environment.observe(),
        velocity=environment.velocities(),
        label=label,
        executed=executed,
    )
    environment.step(executed, duration_s=environment.tick_s)
    return tick


def _pack(
    ticks: list[_Tick], *, task: EpisodeTask, seed: int, tick_s: float, success: bool
) -> Demonstration:
    velocity = [tick.velocity for tick in ticks if tick.velocity is not None]
    return Demonstration(
        instruction=task.instruction,
        task=task,
        seed=seed,
        tick_s=tick_s,
        images={
            camera: np.stack([tick.observation.images[camera] for tick in ticks])
            for camera in ticks[0].observation.images
        },
        state=np.stack([tick.observation.state for tick in ticks]),
        velocity=np.stack(velocity) if velocity else None,
        label=np.stack([tick.label for tick in ticks]).astype(np.float32),
        executed=np.stack([tick.executed for tick in ticks]).astype(np.float32),
        stamp_ns=np.array([tick.observation.stamp_ns for tick in ticks], dtype=np.int64),
        success=success,
    )
