"""The robot's limits, applied to every command before it reaches a controller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import RobotContract


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionLimits:
    """A contract's limits in the order of its action names, float64 [A] each; rad, m and s.

    Attributes:
        acceleration: Infinite for the gripper.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]


def motion_limits(contract: RobotContract) -> MotionLimits:
    """Collect what the joints and the gripper of a contract may do."""
    rows = [(j.lower, j.upper, j.max_velocity, j.max_acceleration) for j in contract.joints]
    if (grip := contract.gripper) is not None:
        rows.append((grip.lower, grip.upper, grip.max_velocity, np.inf))
    lower, upper, velocity, acceleration = np.asarray(rows, np.float64).T
    return MotionLimits(lower=lower, upper=upper, velocity=velocity, acceleration=acceleration)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedCommand:
    """A command within the limits.

    Attributes:
        positions: float64 [A]; rad, m.
        velocities: float64 [A]; rad/s, m/s.
        limited: Names of the joints whose value was changed.
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    limited: tuple[str, ...]


class CommandLimiter:
    """Bounds position, velocity and acceleration of a stream of position commands.

    The first command after `reset` may move no further from the measured position than one
    step at full velocity allows, so that a wrong start never becomes a jump.
    """

    def __init__(self, contract: RobotContract) -> None:
        self._names = contract.action_names
        self._limits = motion_limits(contract)
        self._position: NDArray[np.float64] | None = None
        self._last_velocity = np.zeros(len(self._names))

    def reset(self, measured: NDArray[np.floating]) -> None:
        """Start anew from the measured position, float [A], at rest."""
        self._position = np.asarray(measured, np.float64).copy()
        self._last_velocity = np.zeros(len(self._names))

    def limit(self, target: NDArray[np.floating], *, dt_s: float) -> LimitedCommand:
        """Bound one target, to be reached `dt_s` after the previous one.

        Raises:
            CommandError: not [A], or a value is not finite; nothing is changed then.
        """
        target = np.asarray(target, np.float64)
        if target.shape != (len(self._names),):
            raise CommandError(
                f"command has shape {target.shape}, expected ({len(self._names)},): {self._names}"
            )
        if not np.isfinite(target).all():
            bad = [n for n, v in zip(self._names, target) if not np.isfinite(v)]
            raise CommandError(f"command for {', '.join(bad)} is not finite; it was dropped")
        if self._position is None:
            raise CommandError("no measured position yet; call reset first")
        limits = self._limits
        wanted = np.clip(target, limits.lower, limits.upper)
        velocity = np.clip((wanted - self._position) / dt_s, -limits.velocity, limits.velocity)
        change = limits.acceleration * dt_s
        velocity = np.clip(velocity, self._last_velocity - change, self._last_velocity + change)
        position = np.clip(self._position + velocity * dt_s, limits.lower, limits.upper)
        changed = np.abs(position - target) > 1e-9
        self._last_velocity = (position - self._position) / dt_s
        self._position = position
        return LimitedCommand(
            positions=position.copy(),
            velocities=self._last_velocity.copy(),
            limited=tuple(n for n, c in zip(self._names, changed) if c),
        )
