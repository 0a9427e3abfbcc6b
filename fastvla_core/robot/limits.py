"""The robot's limits, applied to every command before it reaches a controller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import RobotContract


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
        joints = list(contract.joints)
        self._names = contract.action_names
        lower = [j.lower for j in joints]
        upper = [j.upper for j in joints]
        velocity = [j.max_velocity for j in joints]
        acceleration = [j.max_acceleration for j in joints]
        if contract.gripper is not None:
            lower.append(contract.gripper.lower)
            upper.append(contract.gripper.upper)
            velocity.append(contract.gripper.max_velocity)
            acceleration.append(np.inf)
        self._lower, self._upper = np.asarray(lower), np.asarray(upper)
        self._velocity, self._acceleration = np.asarray(velocity), np.asarray(acceleration)
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
        wanted = np.clip(target, self._lower, self._upper)
        velocity = np.clip((wanted - self._position) / dt_s, -self._velocity, self._velocity)
        change = self._acceleration * dt_s
        velocity = np.clip(velocity, self._last_velocity - change, self._last_velocity + change)
        position = np.clip(self._position + velocity * dt_s, self._lower, self._upper)
        changed = np.abs(position - target) > 1e-9
        self._last_velocity = (position - self._position) / dt_s
        self._position = position
        return LimitedCommand(
            positions=position.copy(),
            velocities=self._last_velocity.copy(),
            limited=tuple(n for n, c in zip(self._names, changed) if c),
        )
