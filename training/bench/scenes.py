"""What a policy sees in scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

from fastvla_core.types import Observation


def simulator_observations(count: int, *, cameras: Sequence[str]) -> list[Observation]:
    """Observations of unseen scenes, one per seed and instruction."""
    from fastvla_core.sim.sim import TabletopSim
    from fastvla_core.sim.tabletop import observe
    from fastvla_core.sim.tasks import TASKS, sample_task

    sim, observations = TabletopSim(), []
    for index in range(count):
        seed = 20_000_000 + index
        sim.reset(seed)
        observations.append(observe(sim, sample_task(TASKS[index % len(TASKS)], seed)))
    sim.close()
    return observations
