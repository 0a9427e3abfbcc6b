"""What the command guard decides, without ROS: which command passes, how far, and when to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import CommandError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.limits import CommandLimiter
from fastvla_core.robot.velocity import VelocityFollower

CLOCK_JUMP = "the clock jumped back"
_CLOCK_JUMP_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedCommand:
    """What may go to the robot.

    Attributes:
        positions, velocities: The arm's joints in the contract's order, float64 [J]. Where
            velocities are commanded, these positions are where the arm is: measured, or NaN.
        duration_s: Time to get there; how long velocities are good for.
        gripper: New opening of one finger [m]; None when it stays as it was sent last.
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    duration_s: float
    gripper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReport:
    """What `GuardStatus` says, and how often the arm was held."""

    latched: bool
    reason: str
    limited_joints: tuple[str, ...]
    received: int
    limited: int
    dropped: int
    holds: int


class CommandGuard:
    """The last check before the robot. Times are monotonic nanoseconds, given by the caller.

    A hold is the measured position of the arm, or no velocity. The gripper keeps its last target:
    at its measured opening it would let go of what it holds.

    Args:
        follower: Where the robot is commanded by velocity. It moves on until it is told otherwise,
            so that two periods of silence are enough for a hold.
    """

    def __init__(
        self, contract: RobotContract, *, follower: VelocityFollower | None = None
    ) -> None:
        self._contract = contract
        self._follower = follower
        self._joints = len(contract.joints)
        self._period_ns = round(1e9 / contract.control_rate_hz)
        self._timeout_ns = round(contract.watchdog.timeout_s * 1e9)
        if follower is not None:
            self._timeout_ns = min(self._timeout_ns, 2 * self._period_ns)
        freshness_s = max(contract.watchdog.timeout_s, contract.joint_states.max_age_s)
        self._fresh_ns = round(freshness_s * 1e9)
        self._limiter = CommandLimiter(contract)
        self._measured: NDArray[np.float64] | None = None
        self._measured_at_ns = 0
        self._stamp_ns = 0
        self._seen_at_ns: int | None = None
        self._command_at_ns = 0
        self._budget_ns = 0
        self._moving = self._at_rest = self._hold_owed = False
        self._gripper: float | None = None
        self._reason, self._latched = "", False
        self._limited_joints: tuple[str, ...] = ()
        self._received = self._limited = self._dropped = self._holds = 0

    def on_state(
        self, state: NDArray[np.floating], *, now_ns: int, stamp_ns: int = 0
    ) -> GuardedCommand | None:
        """Take the measured state, float [S], in the contract's order.

        Args:
            stamp_ns: When the robot measured it, on its own clock.

        Returns:
            The hold that is due when that clock jumped back: what was commanded before belongs
            to another time, maybe to another scene.
        """
        self._measured, self._measured_at_ns = np.asarray(state, np.float64), now_ns
        jumped = stamp_ns < self._stamp_ns - _CLOCK_JUMP_NS
        self._stamp_ns = stamp_ns
        if not jumped:
            return None
        self._gripper = None
        return self._hold(CLOCK_JUMP, now_ns=now_ns) if self._moving else None

    def on_command(
        self,
        names: Sequence[str],
        positions: NDArray[np.floating],
        *,
        now_ns: int,
        velocities: NDArray[np.floating] | None = None,
    ) -> GuardedCommand:
        """Map one command by name, bound it, and take it as the sign that the sender lives.

        Args:
            velocities: Of the sender at `positions`; all zero where it comes to rest there, as
                with its last command. None where it does not say.

        Raises:
            CommandError: wrong names, a value that is not finite, the emergency stop, or no
                measured position; the whole command is dropped and counted.
        """
        self._received += 1
        try:
            target = self._in_order(names, positions)
            speed = None if velocities is None else self._in_order(names, velocities)
            result = self._pass(target, speed, now_ns=now_ns)
        except CommandError:
            self._dropped += 1
            raise
        self._at_rest = speed is not None and not speed.any()
        return result

    def drop(self) -> None:
        """Count a command that could not even be read."""
        self._received += 1
        self._dropped += 1

    def watchdog(self, *, now_ns: int) -> GuardedCommand | None:
        """The hold that is due when commands stop, once; None otherwise.

        Where no joint state is fresh it waits for one: a guard that was stalled itself must not
        lose its hold.
        """
        if self._hold_owed:
            return self._hold(self._reason, now_ns=now_ns)
        if not self._moving or now_ns - self._command_at_ns <= self._timeout_ns:
            return None
        return self._hold(f"no command for {self._timeout_ns * 1e-9:.2g} s", now_ns=now_ns)

    @property
    def ended_at_rest(self) -> bool:
        """Whether the sender had come to rest before it fell silent, as after every goal."""
        return self._at_rest

    def stop(self, reason: str, *, now_ns: int) -> GuardedCommand | None:
        """Latch the emergency stop: hold now, and drop every command until `reset_stop`."""
        hold = self._hold(reason, now_ns=now_ns)
        self._latched = True
        return hold

    def reset_stop(self, *, now_ns: int) -> None:
        """Release the emergency stop.

        Raises:
            CommandError: commands still come in, so a goal is still active.
        """
        last = self._seen_at_ns
        if self._latched and last is not None and now_ns - last <= self._timeout_ns:
            raise CommandError(
                "the stop stays: commands still come in",
                mend="end the active goal first, then reset",
            )
        self._latched, self._reason = False, ""

    def report(self) -> GuardReport:
        """State and counters, for `GuardStatus`."""
        return GuardReport(
            latched=self._latched,
            reason=self._reason,
            limited_joints=self._limited_joints,
            received=self._received,
            limited=self._limited,
            dropped=self._dropped,
            holds=self._holds,
        )

    def _pass(
        self, target: NDArray[np.float64], speed: NDArray[np.float64] | None, *, now_ns: int
    ) -> GuardedCommand:
        self._seen_at_ns = now_ns
        if self._latched:
            raise CommandError(
                f"the emergency stop holds ({self._reason})", mend="call ~/reset_stop"
            )
        if self._measured is None or now_ns - self._measured_at_ns > self._fresh_ns:
            raise CommandError(
                f"no fresh joint state on '{self._contract.joint_states.topic}'",
                mend="without it no hold is possible; check the robot's driver",
            )
        if not self._moving:
            self._limiter.reset(self._start(target))
            if self._follower is not None:
                self._follower.reset()
            self._budget_ns = self._period_ns
        else:
            # Commands may bunch; together they get no more time than has gone by.
            passed_ns = self._budget_ns + now_ns - self._command_at_ns
            self._budget_ns = min(passed_ns, 3 * self._period_ns)
        step_ns = max(min(self._period_ns, self._budget_ns), 1_000_000)
        result = self._limiter.limit(target, dt_s=step_ns * 1e-9)
        self._budget_ns = max(0, self._budget_ns - step_ns)
        self._command_at_ns, self._moving, self._reason = now_ns, True, ""
        self._hold_owed = False
        positions, velocities = np.stack([result.positions, result.velocities])[:, : self._joints]
        limited, duration_ns = result.limited, self._period_ns
        if self._follower is not None:
            setpoint, positions = positions, self._measured[: self._joints].copy()
            velocities, slowed = self._follower.follow(
                setpoint,
                velocity=velocities if speed is None else speed[: self._joints],
                measured=positions,
                dt_s=self._period_ns * 1e-9,
            )
            limited, duration_ns = tuple(dict.fromkeys((*limited, *slowed))), self._timeout_ns
        if limited:
            self._limited += 1
            self._limited_joints = limited
        return GuardedCommand(
            positions=positions,
            velocities=velocities,
            duration_s=duration_ns * 1e-9,
            gripper=self._gripper_change(result.positions),
        )

    def _in_order(
        self, names: Sequence[str], positions: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        expected = self._contract.action_names
        if sorted(names) != sorted(expected) or len(positions) != len(names):
            raise CommandError(
                f"command for {', '.join(names) or 'no joint'} ({len(positions)} values); this "
                f"robot has {', '.join(expected)}",
                mend="every command names every joint once, and the gripper",
            )
        order = [list(names).index(name) for name in expected]
        target = np.asarray(positions, np.float64)[order]
        bad = [name for name, value in zip(expected, target) if not np.isfinite(value)]
        if bad:
            raise CommandError(f"command for {', '.join(bad)} is not finite")
        return target

    def _start(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where a motion starts: at the measured position.

        A gripper that holds something is not where it was told to be. It starts between the two,
        as near to its target as that goes, so that it neither lets go nor closes on its way.
        """
        assert self._measured is not None
        position = self._measured.copy()
        if self._gripper is not None:
            low, high = sorted((self._gripper, float(position[self._joints])))
            position[self._joints] = min(max(float(target[self._joints]), low), high)
            # Its controller may have been restarted since, or the scene reset: tell it anew.
            self._gripper = None
        return position

    def _gripper_change(self, positions: NDArray[np.float64]) -> float | None:
        spec = self._contract.gripper
        if spec is None:
            return None
        wanted = float(positions[self._joints])
        if self._gripper is not None and abs(wanted - self._gripper) <= spec.dead_band:
            return None
        self._gripper = wanted
        return wanted

    def _hold(self, reason: str, *, now_ns: int) -> GuardedCommand | None:
        self._moving, self._reason = False, reason
        self._holds += not self._hold_owed
        positions = np.full(self._joints, np.nan)
        if self._measured is not None and now_ns - self._measured_at_ns <= self._fresh_ns:
            positions = self._measured[: self._joints].copy()
        elif self._follower is None:
            self._hold_owed = True
            return None
        self._hold_owed = False
        return GuardedCommand(
            positions=positions,
            velocities=np.zeros(self._joints),
            duration_s=self._period_ns * 1e-9,
        )
