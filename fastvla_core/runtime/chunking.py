"""From action chunks to one setpoint per control tick: on time, merged, within the limits."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import PolicyError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.limits import motion_limits
from fastvla_core.runtime.curve import Curve, Setpoint, hermite, monotone_curve
from fastvla_core.runtime.merging import ChunkMerge, TimedTargets, merge_strategy
from fastvla_core.runtime.tracking import SetpointTracker
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning

# The guard measures time where commands arrive: with their jitter the same motion looks a little
# faster there, and it must not have to cut what was planned within the limits.
LIMIT_SHARE = 0.9
# Observations come in at the cameras' times, which tremble too.
_EARLY_NS = 2_000_000
_DELAYS_KEPT = 8
_MOVING_PER_WAITING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A curve from `start_ns` on; `jump` hides the switch-over at `since_ns`, and fades.

    At the end of one that `pauses`, the robot waits for the next chunk.
    """

    curve: Curve
    start_ns: int
    since_ns: int
    fade_s: float
    jump: Setpoint | None
    pauses: bool

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(self.curve.duration_s * 1e9)

    @property
    def step_ns(self) -> float:
        return self.curve.step_s * 1e9

    def at(self, at_ns: int) -> Setpoint:
        point = self.curve.at((at_ns - self.start_ns) * 1e-9)
        faded_s = (at_ns - self.since_ns) * 1e-9
        if self.jump is None or not 0 <= faded_s < self.fade_s:
            return point
        still = np.zeros_like(point.positions)
        jump = hermite(
            self.jump.positions,
            still,
            self.jump.velocities,
            still,
            over_s=self.fade_s,
            at_s=faded_s,
        )
        return Setpoint(
            positions=point.positions + jump.positions,
            velocities=point.velocities + jump.velocities,
        )


class ChunkExecutor:
    """Plays action chunks back against the clock, which the caller gives.

    Row k of a chunk is the target at its observation's stamp plus (k + 1) * dt, so the time that
    inference took is skipped, not added. Only where the robot stood still from the observation
    on, nothing was missed, and the chunk plays from its beginning. A smooth curve leads through the
    rows; after the last it stays. A newer chunk is merged as the strategy says, and takes over
    without a step in position or velocity: what is left of the difference fades over `blend_s`.
    Whatever chunks ask for, setpoints keep the contract's limits of position, velocity and
    acceleration; those within them are not delayed.

    Args:
        merge: How chunks follow each other; see `merging`. Where the strategy lets the robot wait,
            it moves for twice the delay in between.
        conditionings: How the policy can be told what is planned.
        execute_steps: Action steps from one observation to the next, when inference keeps up.
        blend_s: How long a switch-over fades [s].
        speed_scale: In (0, 1]; the plan is stretched in time by its inverse.
    """

    def __init__(
        self,
        contract: RobotContract,
        *,
        merge: ChunkMerge = "auto",
        conditionings: Collection[Conditioning] = (),
        execute_steps: int = 2,
        blend_s: float = 0.1,
        speed_scale: float = 1.0,
    ) -> None:
        self._names = contract.action_names
        self._period_s = 1.0 / contract.control_rate_hz
        self._strategy = merge_strategy(merge, conditionings=conditionings)
        self._execute_steps = execute_steps
        self._blend_s, self._speed_scale = blend_s, speed_scale
        self._tracker = SetpointTracker(motion_limits(contract), share=LIMIT_SHARE)
        self._delays_ns: deque[int] = deque(maxlen=_DELAYS_KEPT)
        self.reset()

    def reset(self, positions: NDArray[np.floating] | None = None, *, now_ns: int = 0) -> None:
        """Forget every chunk; the next one starts from rest at `positions`, float [A]."""
        self._rest = None if positions is None else np.asarray(positions, np.float64).copy()
        self._plan: _Plan | None = None
        self._prefix: tuple[int, ChunkPrefix] | None = None
        self._last: tuple[int, Setpoint] | None = None
        self._reset_ns = now_ns
        self._strategy.reset()
        self._tracker.reset(self._rest)

    @property
    def delay_s(self) -> float:
        """From an observation to its chunk's taking over, the longest of the last few [s]."""
        return max(self._delays_ns, default=0) * 1e-9

    @property
    def _usual_delay_s(self) -> float:
        # One late chunk among many is no reason to wait for all, or to guide all.
        return statistics.median(self._delays_ns or [0]) * 1e-9

    @property
    def due_ns(self) -> int | None:
        """When to observe for the next chunk; None for at once.

        `execute_steps` after the last, or so much earlier that the chunk is there one step before
        the plan ends; at the end of a plan that pauses.
        """
        plan = self._plan
        if plan is None:
            return None
        if plan.pauses:
            return plan.end_ns
        wanted_ns = plan.start_ns + self._execute_steps * plan.step_ns
        latest_ns = plan.end_ns - plan.step_ns - self.delay_s * 1e9
        return round(min(wanted_ns, latest_ns)) - _EARLY_NS

    def prefix(self, stamp_ns: int) -> ChunkPrefix | None:
        """What a chunk that is inferred from an observation of `stamp_ns` has to agree with.

        The rows that will mostly have been executed are frozen, and as many again are wished for:
        over more, chunks as short as the nano policy's would follow an old plan for too long.
        None where the strategy tells the policy nothing, or nothing is planned, or the delay is
        too short to matter.
        """
        plan, conditioning = self._plan, self._strategy.conditioning
        self._prefix = None
        if plan is None or conditioning is None:
            return None
        step_ns = plan.step_ns
        if self._usual_delay_s * 1e9 < self._strategy.told_from_steps * step_ns:
            return None
        planned = int((plan.end_ns - stamp_ns) / step_ns + 1e-6)
        frozen = min(planned, int(self.delay_s * 1e9 / step_ns + 0.5))
        rows = min(planned, 2 * frozen)
        if rows <= 0:
            return None
        times_ns = stamp_ns + np.arange(1, rows + 1) * step_ns
        prefix = ChunkPrefix(
            names=self._names,
            positions=np.stack([plan.at(round(t)).positions for t in times_ns]),
            frozen=frozen,
            conditioning=conditioning,
        )
        self._prefix = stamp_ns, prefix
        return prefix

    def submit(self, chunk: ActionChunk, *, now_ns: int) -> None:
        """Take a chunk over; its columns are mapped by name.

        Raises:
            PolicyError: the chunk has no rows, no time between them, or not the robot's names.
        """
        targets = self._targets(chunk)
        self._delays_ns.append(max(0, now_ns - chunk.stamp_ns))
        old, step_s = self._plan, chunk.dt_s / self._speed_scale
        stood = self._reset_ns if old is None else old.end_ns
        rested = (old is not None or self._rest is not None) and stood <= chunk.stamp_ns
        start_ns = now_ns if rested else chunk.stamp_ns
        times_ns = start_ns + np.round(np.arange(1, len(targets) + 1) * step_s * 1e9)
        told = self._prefix[1] if self._prefix and self._prefix[0] == chunk.stamp_ns else None
        rows = self._strategy.merge(TimedTargets(times_ns.astype(np.int64), targets), told)
        delay_steps = self._usual_delay_s / step_s
        if pauses := delay_steps > self._strategy.patience_share * len(targets):
            rows = rows[: max(self._execute_steps, round(_MOVING_PER_WAITING * delay_steps))]
        begin = self._begin(rows, chunk.stamp_ns)
        curve = monotone_curve(
            np.vstack([begin.positions, rows]), step_s=step_s, start_velocity=begin.velocities
        )
        after = curve.at((now_ns - start_ns) * 1e-9)
        self._plan = _Plan(
            curve=curve,
            start_ns=start_ns,
            since_ns=now_ns,
            fade_s=self._blend_s,
            jump=None if old is None else _difference(old.at(now_ns), after),
            pauses=pauses,
        )

    def sample(self, now_ns: int) -> Setpoint | None:
        """The setpoint at `now_ns`, or None before the first chunk.

        One call per control tick: the limits are kept from each call to the next.
        """
        if self._plan is None:
            return None
        dt_s = self._period_s
        if self._last is not None:
            last_ns, setpoint = self._last
            # A tick that comes late is no reason to move further in the time that a command takes.
            dt_s = min(dt_s, (now_ns - last_ns) * 1e-9)
            if dt_s <= 0:
                return setpoint
        setpoint = self._tracker.follow(self._plan.at(now_ns), dt_s=dt_s)
        self._last = now_ns, setpoint
        return setpoint

    def exhausted(self, now_ns: int) -> bool:
        """Whether the last target has been reached, so that the setpoint stands still."""
        return self.steps_left(now_ns) == 0

    def steps_left(self, now_ns: int) -> int:
        """Targets that lie ahead of `now_ns`."""
        if self._plan is None:
            return 0
        left = (self._plan.end_ns - now_ns) / self._plan.step_ns
        return min(len(self._plan.curve.positions) - 1, max(0, math.ceil(left - 1e-6)))

    def _targets(self, chunk: ActionChunk) -> NDArray[np.float64]:
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
        return chunk.positions[:, [chunk.names.index(name) for name in self._names]]

    def _begin(self, rows: NDArray[np.float64], stamp_ns: int) -> Setpoint:
        """Where the curve begins: what was commanded at the observation."""
        if self._plan is not None:
            return self._plan.at(stamp_ns)
        rest = rows[0] if self._rest is None else self._rest
        return Setpoint(positions=rest, velocities=np.zeros_like(rest))


def _difference(before: Setpoint, after: Setpoint) -> Setpoint:
    return Setpoint(
        positions=before.positions - after.positions,
        velocities=before.velocities - after.velocities,
    )
