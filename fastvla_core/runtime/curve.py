"""A smooth way through targets at their times. Shapes: k knots, a action dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """Where the robot should be at one time, float64 [A]: rad, m and rad/s, m/s."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Cubic pieces through knots `step_s` apart; it stands still before the first and at the last.

    Attributes:
        positions, slopes: float64 [k, a] each; at least two knots.
    """

    step_s: float
    positions: NDArray[np.float64]
    slopes: NDArray[np.float64]

    @property
    def duration_s(self) -> float:
        """From the first knot to the last [s]."""
        return self.step_s * (len(self.positions) - 1)

    def at(self, elapsed_s: float) -> Setpoint:
        """The point `elapsed_s` after the first knot."""
        if not 0 <= elapsed_s < self.duration_s:
            end = self.positions[0 if elapsed_s < 0 else -1]
            return Setpoint(positions=end.copy(), velocities=np.zeros_like(end))
        piece = min(int(elapsed_s / self.step_s), len(self.positions) - 2)
        start, end = self.positions[piece : piece + 2]
        out, into = self.slopes[piece : piece + 2]
        return hermite(
            start, end, out, into, over_s=self.step_s, at_s=elapsed_s - piece * self.step_s
        )


def hermite(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    start_velocity: NDArray[np.float64],
    end_velocity: NDArray[np.float64],
    *,
    over_s: float,
    at_s: float,
) -> Setpoint:
    """The cubic from one position and velocity to another, at a time in between."""
    x = at_s / over_s
    rise, out, into = x * x * (3 - 2 * x), x * (1 - x) ** 2, x * x * (x - 1)
    positions = start + rise * (end - start) + over_s * (out * start_velocity + into * end_velocity)
    velocities = (
        6 * x * (1 - x) / over_s * (end - start)
        + (1 - x) * (1 - 3 * x) * start_velocity
        + x * (3 * x - 2) * end_velocity
    )
    return Setpoint(positions=positions, velocities=velocities)


def monotone_curve(
    positions: NDArray[np.float64], *, step_s: float, start_velocity: NDArray[np.float64]
) -> Curve:
    """Through every row of [k, a], beginning at a velocity and ending at rest.

    Between two rows it never leaves the range between them (but for what the start velocity asks
    for): a gripper that closes does not bounce, a joint that stops does not swing.

    Source: Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5 (1984), for even steps.
    """
    steps = np.diff(positions, axis=0) / step_s
    before, after = steps[:-1], steps[1:]
    same_way = before * after > 0
    total = np.where(same_way, before + after, 1.0)
    inner = np.where(same_way, 2 * before * after / total, 0.0)
    slopes = np.vstack([start_velocity, inner, np.zeros_like(start_velocity)])
    return Curve(step_s=step_s, positions=positions, slopes=slopes)
