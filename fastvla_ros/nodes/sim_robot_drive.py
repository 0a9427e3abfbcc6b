"""The simulated controllers: a joint trajectory controller and a gripper, as targets over time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import RobotContract


class SimDrive:
    """Turns commands into one target per instant; safe to command from other threads.

    The arm moves linearly from its current target to the commanded one over the command's
    duration. The gripper moves to its target at the contract's largest velocity.
    """

    def __init__(self, contract: RobotContract, *, start: NDArray[np.floating]) -> None:
        self._names = contract.action_names
        self._gripper_velocity = contract.gripper.max_velocity if contract.gripper else 0.0
        self._lock = threading.Lock()
        self.reset(start)

    def reset(self, position: NDArray[np.floating]) -> None:
        """Hold `position`, float [A], and forget every command."""
        with self._lock:
            self._from = np.asarray(position, np.float64).copy()
            self._to = self._from.copy()
            self._begin_ns = np.zeros(len(self._names), np.int64)
            self._end_ns = np.zeros(len(self._names), np.int64)

    def move(
        self, names: Sequence[str], positions: Sequence[float], *, now_ns: int, duration_s: float
    ) -> None:
        """Move the named joints to `positions` [rad or m] over `duration_s` from `now_ns` on.

        Raises:
            CommandError: an unknown joint, a wrong count, or a value that is not finite;
                nothing is changed then.
        """
        columns, goal = self._checked(names, positions, what="positions")
        with self._lock:
            self._begin(columns, goal, now_ns=now_ns, duration_s=duration_s)

    def jog(
        self, names: Sequence[str], velocities: Sequence[float], *, now_ns: int, duration_s: float
    ) -> None:
        """Move the named joints at `velocities` [rad/s or m/s] for `duration_s`, then stand still.

        Raises:
            CommandError: as `move`.
        """
        columns, speed = self._checked(names, velocities, what="velocities")
        with self._lock:
            goal = self._at(now_ns)[columns] + speed * duration_s
            self._begin(columns, goal, now_ns=now_ns, duration_s=duration_s)

    def move_gripper(self, name: str, position: float, *, now_ns: int) -> None:
        """Open or close the gripper to `position` [m, one finger] at its largest velocity."""
        column = self._names.index(name)
        distance = abs(position - float(self.target(now_ns)[column]))
        duration_s = distance / self._gripper_velocity if self._gripper_velocity else 0.0
        self.move([name], [position], now_ns=now_ns, duration_s=duration_s)

    def target(self, at_ns: int) -> NDArray[np.float64]:
        """The target of every joint at an instant, float64 [A]."""
        with self._lock:
            return self._at(at_ns)

    def _checked(
        self, names: Sequence[str], values: Sequence[float], *, what: str
    ) -> tuple[list[int], NDArray[np.float64]]:
        unknown = [name for name in names if name not in self._names]
        if unknown:
            raise CommandError(
                f"command for unknown joint {', '.join(unknown)}; "
                f"this robot has {', '.join(self._names)}"
            )
        row = np.asarray(values, np.float64)
        if row.shape != (len(names),) or not np.isfinite(row).all():
            raise CommandError(f"command for {len(names)} joints has {what} {row.tolist()}")
        return [self._names.index(name) for name in names], row

    def _begin(
        self, columns: list[int], goal: NDArray[np.float64], *, now_ns: int, duration_s: float
    ) -> None:
        self._from[columns] = self._at(now_ns)[columns]
        self._to[columns] = goal
        self._begin_ns[columns] = now_ns
        self._end_ns[columns] = now_ns + max(0, round(duration_s * 1e9))

    def _at(self, at_ns: int) -> NDArray[np.float64]:
        span = np.maximum(self._end_ns - self._begin_ns, 1)
        share = np.clip((at_ns - self._begin_ns) / span, 0.0, 1.0)
        share[at_ns >= self._end_ns] = 1.0
        return self._from + share * (self._to - self._from)
