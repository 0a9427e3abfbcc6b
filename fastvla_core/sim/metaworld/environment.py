"""Meta-World's tasks as an environment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.environment import Disturbance
from fastvla_core.sim.metaworld.expert import ScriptedExpert
from fastvla_core.sim.metaworld.sim import CAMERAS, MAX_STEPS, STEP_S, MetaWorldSim
from fastvla_core.sim.metaworld.tasks import MetaWorldTask
from fastvla_core.sim.monitor import Outcome
from fastvla_core.sim.noise import HandDrift
from fastvla_core.types import Observation

_DRIFT_M = (0.001, 0.006)
_BUMP_M = 0.04
_BUMP_CHANCE = 0.05


class MetaWorldEnvironment:
    """See `Environment`; `begin` comes before everything else.

    Done is what Meta-World's `success` says once; failed is what is not done in its 500 steps.
    """

    # At 10 Hz a fifth of the experts fail: they count on looking more often.
    tick_s = 0.05
    linger_ticks = 2
    drive_ticks: tuple[int, int] = (1, 50)

    def __init__(self) -> None:
        self._loaded: tuple[MetaWorldSim, ScriptedExpert] | None = None

    def begin(self, task: MetaWorldTask, seed: int) -> None:
        # Each task is a model of its own; jobs of one task follow each other.
        if self._loaded is None or self._sim.task != task:
            self.close()
            sim = MetaWorldSim(task)
            self._loaded = sim, ScriptedExpert(sim)
        self._sim.reset(seed)

    @property
    def _sim(self) -> MetaWorldSim:
        assert self._loaded is not None, "begin comes first"
        return self._loaded[0]

    def watch(self) -> None:
        self._sim.begin_anew()

    def observe(self) -> Observation:
        sim = self._sim
        return Observation(
            stamp_ns=sim.time_ns,
            task=sim.task.instruction,
            images={camera: sim.render(camera) for camera in CAMERAS},
            state=sim.state(),
        )

    def velocities(self) -> None:
        return None

    def step(self, target: NDArray[np.floating], *, duration_s: float) -> None:
        self._sim.step(target, duration_s=duration_s)

    def expert_target(self) -> NDArray[np.float64]:
        assert self._loaded is not None, "begin comes first"
        return self._loaded[1].target(duration_s=self.tick_s)

    def disturbance(self, rng: np.random.Generator) -> Disturbance:
        # Every episode of Meta-World begins with the hand at one place: a bump at the start shows
        # the way from others.
        drift = HandDrift(
            rng, strength_m=_DRIFT_M, bump_m=_BUMP_M, bump_chance=_BUMP_CHANCE, starts_bumped=True
        )
        return lambda target: np.append(target[:3] + drift.offset(height_m=target[2]), target[3])

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded[0].close()
            self._loaded = None

    @property
    def outcome(self) -> Outcome:
        if self._sim.succeeded:
            return Outcome.SUCCESS
        return Outcome.FAILED if self._sim.time_is_up else Outcome.UNKNOWN

    @property
    def is_fulfilled(self) -> bool:
        return self._sim.succeeded

    @property
    def horizon(self) -> int:
        return int(MAX_STEPS * STEP_S / self.tick_s)

    @property
    def time_ns(self) -> int:
        return self._sim.time_ns
