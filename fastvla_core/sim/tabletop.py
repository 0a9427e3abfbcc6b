"""The table-top robot as an environment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.environment import Disturbance
from fastvla_core.sim.expert import expert_action
from fastvla_core.sim.monitor import Outcome, TaskMonitor
from fastvla_core.sim.noise import HandNoise
from fastvla_core.sim.rendering import POLICY_CAMERAS
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tasks import Task, TaskKind
from fastvla_core.types import Observation

HORIZON_TICKS: dict[TaskKind, int] = {
    "reach": 50,
    "pick": 60,
    "place": 90,
    "stack": 90,
    "push": 70,
    "hold": 90,
}
"""About three times what the expert needs; a policy that has not succeeded by then has failed."""


def observe(sim: TabletopSim, task: Task) -> Observation:
    """What the policy gets to see now."""
    return Observation(
        stamp_ns=sim.time_ns,
        task=task.instruction,
        images={camera: sim.render(camera) for camera in POLICY_CAMERAS},
        state=sim.state(),
    )


class TabletopEnvironment:
    """See `Environment`; `begin` comes before everything else.

    Args:
        sim: The simulator to use; a new one by default.
    """

    tick_s = 0.1
    linger_ticks = 5
    drive_ticks: tuple[int, int] = (3, 45)

    def __init__(self, sim: TabletopSim | None = None) -> None:
        self.sim = TabletopSim() if sim is None else sim
        self._task: Task
        self._monitor: TaskMonitor

    def begin(self, task: Task, seed: int) -> None:
        self.sim.reset(seed)
        self._task = task
        self.watch()

    def watch(self) -> None:
        self._monitor = TaskMonitor(self.sim, self._task)

    def observe(self) -> Observation:
        return observe(self.sim, self._task)

    def velocities(self) -> NDArray[np.float32]:
        return self.sim.joint_velocities()

    def step(self, target: NDArray[np.floating], *, duration_s: float) -> None:
        self.sim.step(target, duration_s=duration_s)
        self._monitor.update()

    def expert_target(self) -> NDArray[np.float64]:
        return expert_action(self.sim, self._task)

    def disturbance(self, rng: np.random.Generator) -> Disturbance:
        return HandNoise(rng).disturb

    def close(self) -> None:
        self.sim.close()

    @property
    def outcome(self) -> Outcome:
        return self._monitor.outcome

    @property
    def is_fulfilled(self) -> bool:
        return self._monitor.target_fulfilled()

    @property
    def horizon(self) -> int:
        return HORIZON_TICKS[self._task.kind]

    @property
    def time_ns(self) -> int:
        return self.sim.time_ns
