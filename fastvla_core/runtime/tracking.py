"""Setpoints that a robot can follow: bounded velocity and acceleration, whatever is asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.limits import MotionLimits
from fastvla_core.runtime.curve import Setpoint

# Stands for the gripper's unbounded acceleration where infinity would give NaN.
_UNBOUNDED = 1e6
# Rounding is a thousandth of it; a jump by as much is within every limit.
_REACHED = 1e-12


class SetpointTracker:
    """Follows a moving target as closely as the limits allow.

    What is within the limits passes through unchanged and undelayed. What is not is approached at
    the largest acceleration, and slowed down for in time: it is met at the target's own velocity,
    and neither it nor a position limit is run over.

    Args:
        share: How much of the velocity and acceleration limits is used.
    Source: the time-optimal filter of second order, here for steps of any length; Zanasi, Guarino
        Lo Bianco and Tonielli, Nonlinear filters for the generation of smooth trajectories,
        Automatica 36 (2000).
    """

    def __init__(self, limits: MotionLimits, *, share: float = 1.0) -> None:
        self._limits = limits
        self._velocity_limit = share * limits.velocity
        acceleration = np.where(np.isinf(limits.acceleration), _UNBOUNDED, limits.acceleration)
        self._acceleration = share * acceleration
        self._position: NDArray[np.float64] | None = None
        self._velocity = np.zeros_like(limits.velocity)

    def reset(self, position: NDArray[np.floating] | None = None) -> None:
        """Start anew, at rest: from `position`, float [A], or where the next target is."""
        self._position = None if position is None else np.asarray(position, np.float64).copy()
        self._velocity = np.zeros_like(self._velocity)

    def follow(self, target: Setpoint, *, dt_s: float) -> Setpoint:
        """One step of `dt_s` towards where the target is at its end."""
        limits, h, a = self._limits, dt_s, self._acceleration
        goal = np.clip(target.positions, limits.lower, limits.upper)
        if self._position is None:
            self.reset(goal)
        position, last = self._position, self._velocity
        assert position is not None
        moving = np.clip(target.velocities, -self._velocity_limit, self._velocity_limit)
        moving = np.where(goal == target.positions, moving, 0.0)
        gap = goal - position - moving * h
        velocity = moving + np.sign(gap) * _closing_speed(np.abs(gap), acceleration=a, dt_s=h)
        velocity = np.clip(velocity, -self._velocity_limit, self._velocity_limit)
        velocity = np.minimum(velocity, _stopping_speed(limits.upper - position, a, h))
        velocity = np.maximum(velocity, -_stopping_speed(position - limits.lower, a, h))
        velocity = np.clip(velocity, last - a * h, last + a * h)
        position = position + velocity * h
        self._position, self._velocity = position, velocity
        reached = np.abs(position - target.positions) < _REACHED
        return Setpoint(
            positions=np.where(reached, target.positions, position),
            velocities=np.where(reached, moving, velocity),
        )


def _closing_speed(
    gap: NDArray[np.float64], *, acceleration: NDArray[np.float64], dt_s: float
) -> NDArray[np.float64]:
    """The largest speed for one step from which braking step by step ends exactly at the gap.

    After a first step at u, n steps of u - a h, u - 2 a h, ... are left: together they cover
    (n + 1) u h - a h^2 n (n + 1) / 2, where n = floor(u / (a h)).
    """
    unit = acceleration * dt_s**2
    ratio = gap / unit
    steps = np.floor((np.sqrt(1 + 8 * ratio) - 1) / 2)
    return acceleration * dt_s * (ratio / (steps + 1) + steps / 2)


def _stopping_speed(
    room: NDArray[np.float64], acceleration: NDArray[np.float64], dt_s: float
) -> NDArray[np.float64]:
    """The largest speed for one step that leaves room to stop, however long the next steps are."""
    room = np.maximum(room, 0.0)
    braking = acceleration * dt_s
    return np.sqrt(braking**2 + 2 * acceleration * room) - braking
