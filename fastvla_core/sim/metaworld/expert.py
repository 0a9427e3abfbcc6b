"""Meta-World's scripted experts, asked for one target at a time."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.metaworld.sim import MetaWorldSim, load_metaworld


class ScriptedExpert:
    """The expert that Meta-World ships for a task; it has no memory."""

    def __init__(self, sim: MetaWorldSim) -> None:
        policies = load_metaworld("metaworld.policies").ENV_POLICY_MAP
        self._sim = sim
        self._policy: Any = policies[sim.task.name]()

    def target(self, *, duration_s: float) -> NDArray[np.float64]:
        """What it would bring the set point to within `duration_s`; float64 [4], m."""
        return self._sim.preview(self._act, duration_s=duration_s)

    def _act(self, seen: NDArray[np.float64]) -> NDArray[np.floating]:
        with warnings.catch_warnings():
            # It warns of actions beyond 1, which it counts on being clipped.
            warnings.simplefilter("ignore")
            return self._policy.get_action(seen)
