"""A policy without a model: what is left is the cost of everything around it."""

from __future__ import annotations

import numpy as np

from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import ActionChunk, Observation


class FixedChunkPolicy:
    """Sways the first joint gently about where the robot stands at the first observation.

    Args:
        horizon, dt_s: Rows of a chunk, and the time between them; those of the nano policy.
    """

    def __init__(self, contract: RobotContract, *, horizon: int = 8, dt_s: float = 0.1) -> None:
        self._names = contract.action_names
        self._horizon, self._dt_s = horizon, dt_s
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget where the robot stood."""
        del seed
        self._rest: np.ndarray | None = None
        self._start_ns = 0
        self._count = 0

    def infer(self, observation: Observation, /) -> ActionChunk:
        """The next rows of the movement, float64 [horizon, A]."""
        if self._rest is None:
            self._rest = observation.state.astype(np.float64)
            self._start_ns = observation.stamp_ns
        elapsed_s = (observation.stamp_ns - self._start_ns) * 1e-9
        times_s = elapsed_s + self._dt_s * np.arange(1, self._horizon + 1)
        positions = np.tile(self._rest, (self._horizon, 1))
        positions[:, 0] += 0.2 * np.sin(times_s)
        chunk = ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=self._count,
            names=self._names,
            dt_s=self._dt_s,
            positions=positions,
        )
        self._count += 1
        return chunk
