"""What a goal commands: setpoints one control period ahead, and the hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.chunking import ChunkExecutor
from fastvla_core.types import JointTrajectoryCommand

_ANY_TIME_NS = 2**63 - 1


class GoalMotion:
    """Makes the commands of one goal, and remembers the last one.

    A hold is the measured position of the arm with the gripper's last target: at its measured
    opening the gripper would let go of what it holds.
    """

    def __init__(self, contract: RobotContract, *, buffers: StreamBuffers) -> None:
        self.period_ns = round(1e9 / contract.control_rate_hz)
        self._contract, self._buffers = contract, buffers
        self._last: NDArray[np.float64] | None = None

    def rest(self) -> NDArray[np.float64] | None:
        """Where to stand still, float64 [A]; None before the first joint state."""
        sample = self._buffers.hold(JOINT_STATES, at_ns=_ANY_TIME_NS)
        if sample is None:
            return None
        rest = np.asarray(sample.value, np.float64).copy()
        if self._last is not None:
            arm = len(self._contract.joints)
            rest[arm:] = self._last[arm:]
        return rest

    def move(self, executor: ChunkExecutor, *, now_ns: int) -> JointTrajectoryCommand | None:
        """The setpoint of one period from now, when it is reached; None before the first chunk."""
        setpoint = executor.sample(now_ns + self.period_ns)
        if setpoint is None:
            return None
        return self._command(now_ns, setpoint.positions, setpoint.velocities)

    def hold(self, *, now_ns: int) -> JointTrajectoryCommand | None:
        """Stand still at the measured position.

        None when nothing was moved, or no joint state is fresh: then the guard's watchdog, which
        sees the joint states itself, holds when no more commands come.
        """
        newest_ns = self._buffers.newest_ns(JOINT_STATES)
        limit_ns = self._contract.joint_states.max_age_s * 1e9
        rest = self.rest()
        if self._last is None or newest_ns is None or rest is None:
            return None
        if now_ns - newest_ns > limit_ns:
            return None
        return self._command(now_ns, rest, np.zeros_like(rest))

    def _command(
        self, now_ns: int, positions: NDArray[np.float64], velocities: NDArray[np.float64]
    ) -> JointTrajectoryCommand:
        self._last = positions
        return JointTrajectoryCommand(
            stamp_ns=now_ns,
            names=self._contract.action_names,
            positions=positions,
            velocities=velocities,
            duration_s=self.period_ns * 1e-9,
        )
