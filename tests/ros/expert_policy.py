"""The scripted expert in a policy's place: a development aid that sees the simulator's state."""

import numpy as np

from fastvla_core.sim import TabletopSim, expert_action, parse_instruction
from fastvla_core.sim.gl import load_mujoco
from fastvla_core.types import ActionChunk

HORIZON, DT_S = 8, 0.1


class ExpertPolicy:
    """Plays the expert ahead in a simulator of its own, which is copied from the running one.

    Args:
        loop: Gives the `SimLoop` whose robot is commanded.
        names: Columns of the action.
    """

    device = "cpu"

    def __init__(self, loop, *, names):
        self._loop, self._names = loop, names
        self._ahead = TabletopSim()
        self.inferences = 0

    def reset(self, seed=0):
        pass

    def infer(self, observation):
        task = parse_instruction(observation.task)
        rows = np.tile(observation.state.astype(np.float64), (HORIZON, 1))
        if task is not None:
            self._loop().submit(self._copy).result(timeout=2.0)
            for row in rows:
                row[:] = expert_action(self._ahead, task)
                self._ahead.step(row, duration_s=DT_S)
        self.inferences += 1
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=self.inferences,
            names=self._names,
            dt_s=DT_S,
            positions=rows,
        )

    def _copy(self, sim):
        load_mujoco().mj_copyData(self._ahead._data, self._ahead._model, sim._data)
