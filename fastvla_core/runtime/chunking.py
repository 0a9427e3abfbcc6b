"""From action chunks to one position per control tick: interpolated, time-aligned, blended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import PolicyError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import ActionChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """Where the robot should be at one time, float64 [A]: rad, m and rad/s, m/s."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Targets at their times; `shift` fades out after `since_ns` and hides the switch-over."""

    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    start_ns: int
    since_ns: int
    shift: NDArray[np.float64]

    @property
    def end_ns(self) -> int:
        """When the last target is reached."""
        return self.start_ns + round(self.times_s[-1] * 1e9)


class ChunkExecutor:
    """Plays action chunks back against the clock, which the caller gives.

    Row k of a chunk is the target at its observation's stamp plus (k + 1) * dt, so the time that
    inference took is skipped, not added. Only where the robot stood still from the observation
    on, nothing was missed, and the chunk plays from its beginning. Between two rows the position
    runs linearly; after the last it stays. A newer chunk takes over without a jump: its distance
    to the old plan at that moment is added to it and fades to zero over `blend_s`.

    Args:
        blend_s: How long a switch-over fades [s].
        speed_scale: In (0, 1]; the plan is stretched in time by its inverse.
    """

    def __init__(
        self, contract: RobotContract, *, blend_s: float = 0.1, speed_scale: float = 1.0
    ) -> None:
        self._names = contract.action_names
        self._gripper = contract.gripper
        self._blend_ns = round(blend_s * 1e9)
        self._speed_scale = speed_scale
        self._plan: _Plan | None = None
        self._next: ActionChunk | None = None

    def reset(self, positions: NDArray[np.floating] | None = None, *, now_ns: int = 0) -> None:
        """Forget every chunk; the next one starts from rest at `positions`, float [A]."""
        self._next = None
        self._plan = None
        if positions is not None:
            at = np.asarray(positions, np.float64)[None]
            self._plan = _Plan(np.zeros(1), at, now_ns, now_ns, np.zeros(at.shape[1]))

    def submit(self, chunk: ActionChunk) -> None:
        """Take a chunk over at the next `sample`; its columns are mapped by name.

        Raises:
            PolicyError: the chunk has no rows, no time between them, or not the robot's names.
        """
        if not len(chunk.positions) or not chunk.dt_s > 0:
            raise PolicyError(
                f"action chunk {chunk.chunk_id} has {len(chunk.positions)} rows, "
                f"{chunk.dt_s} s apart; nothing of it can be executed"
            )
        if sorted(chunk.names) != sorted(self._names):
            raise PolicyError(
                f"action chunk {chunk.chunk_id} has the columns {', '.join(chunk.names)}, "
                f"the robot has {', '.join(self._names)}",
                mend="use a checkpoint that was trained for this robot contract",
            )
        self._next = chunk

    def sample(self, now_ns: int) -> Setpoint | None:
        """The setpoint at `now_ns`, or None before the first chunk."""
        if self._next is not None:
            self._plan = self._switch(self._next, now_ns)
            self._next = None
        if self._plan is None or len(self._plan.times_s) == 1:
            return None
        return self._saturated(self._at(self._plan, now_ns))

    def _saturated(self, setpoint: Setpoint) -> Setpoint:
        # A gripper closed further than closed is closed: a regressed target straddles its ends,
        # and the guard would count every one of those as a limited command.
        if self._gripper is None:
            return setpoint
        positions = setpoint.positions.copy()
        positions[-1] = np.clip(positions[-1], self._gripper.lower, self._gripper.upper)
        return Setpoint(positions=positions, velocities=setpoint.velocities)

    def exhausted(self, now_ns: int) -> bool:
        """Whether the last target has been reached, so that the setpoint stands still."""
        return self.steps_left(now_ns) == 0

    def steps_left(self, now_ns: int) -> int:
        """Targets that lie ahead of `now_ns`; those of a chunk that is not yet taken over count."""
        if self._next is not None:
            step_ns = self._next.dt_s / self._speed_scale * 1e9
            done = max(0, int((now_ns - self._next.stamp_ns) / step_ns))
            return max(0, len(self._next.positions) - done)
        if self._plan is None:
            return 0
        elapsed_s = (now_ns - self._plan.start_ns) * 1e-9
        return int((self._plan.times_s > elapsed_s + 1e-9).sum())

    def _switch(self, chunk: ActionChunk, now_ns: int) -> _Plan:
        columns = [chunk.names.index(name) for name in self._names]
        targets = chunk.positions[:, columns]
        old = self._plan
        # Up to its first target a chunk continues from what was commanded at its observation.
        start = targets[0] if old is None else self._at(old, chunk.stamp_ns).positions
        step_s = chunk.dt_s / self._speed_scale
        rested = old is not None and old.end_ns <= chunk.stamp_ns
        plan = _Plan(
            np.arange(len(targets) + 1, dtype=np.float64) * step_s,
            np.vstack([start, targets]),
            now_ns if rested else chunk.stamp_ns,
            now_ns,
            np.zeros(len(self._names)),
        )
        if old is None:
            return plan
        jump = self._at(old, now_ns).positions - self._at(plan, now_ns).positions
        return _Plan(plan.times_s, plan.positions, plan.start_ns, plan.since_ns, jump)

    def _at(self, plan: _Plan, at_ns: int) -> Setpoint:
        elapsed_s = (at_ns - plan.start_ns) * 1e-9
        times_s = plan.times_s
        row = int(np.searchsorted(times_s, elapsed_s, side="right")) - 1
        if row < 0 or row >= len(times_s) - 1:
            positions = plan.positions[max(row, 0)]
            velocities = np.zeros_like(positions)
        else:
            velocities = np.diff(plan.positions[row : row + 2], axis=0)[0] / np.diff(times_s)[row]
            positions = plan.positions[row] + velocities * (elapsed_s - times_s[row])
        faded_ns = at_ns - plan.since_ns
        if 0 <= faded_ns < self._blend_ns:
            positions = positions + plan.shift * (1 - faded_ns / self._blend_ns)
            velocities = velocities - plan.shift / (self._blend_ns * 1e-9)
        return Setpoint(positions=positions, velocities=velocities)
