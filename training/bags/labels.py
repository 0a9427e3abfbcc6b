"""The command stream of a recording, sampled at the instants that a policy is to predict."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.interpolate import between
from fastvla_core.robot.joints import pick_stamp
from training.bags import messages
from training.bags.storage import RawMessage

SNAP_NS = 1_000_000
"""Stamps closer than this are one instant: clocks rounded to floats differ by some ns."""


class CommandTrack:
    """Targets over time, from trajectories or bare position arrays; the newest message wins."""

    def __init__(self, contract: RobotContract) -> None:
        self._contract = contract
        self._renamed = dict(contract.joint_states.names)
        self._times: list[int] = []
        self._points: list[NDArray[np.float64]] = []

    def add(self, raw: RawMessage) -> None:
        """Take the points of one message.

        Raises:
            MessageError: the type is not a command, or its names or values do not fit.
        """
        message = self._parse(raw)
        if raw.type == messages.FLOAT64_ARRAY:
            duration_ns = round(1e9 / self._contract.control_rate_hz)
            names = self._contract.action_names
            self._put(raw.topic, raw.stamp_ns + duration_ns, names, message.data)
            return
        stamp_ns = pick_stamp(self._contract, header_ns=header_ns(message), receive_ns=raw.stamp_ns)
        for point in message.points:
            after = point.time_from_start
            at_ns = stamp_ns + after.sec * 1_000_000_000 + after.nanosec
            self._put(raw.topic, at_ns, message.joint_names, point.positions)

    def _put(self, topic: str, at_ns: int, names: Any, positions: Any) -> None:
        wanted = self._contract.action_names
        names = [self._renamed.get(name, name) for name in names]
        missing = [name for name in wanted if name not in names]
        if missing or len(names) != len(positions):
            raise MessageError(
                f"{topic}: a command for {', '.join(names)} with {len(positions)} positions; "
                f"expected {', '.join(wanted)}",
                mend="record commands of all joints of the contract, or map the names in "
                "joint_states.names",
            )
        point = np.asarray([positions[names.index(name)] for name in wanted], np.float64)
        if not np.isfinite(point).all():
            raise MessageError(f"{topic}: a command is not finite", mend="leave this episode out")
        while self._times and self._times[-1] >= at_ns:
            self._times.pop()
            self._points.pop()
        self._times.append(at_ns)
        self._points.append(point)

    def add_at(self, raw: RawMessage, at_ns: int) -> None:
        """Take the first point of one message for an instant, whatever time it gives itself."""
        message = self._parse(raw)
        if raw.type == messages.FLOAT64_ARRAY:
            self._put(raw.topic, at_ns, self._contract.action_names, message.data)
        elif message.points:
            self._put(raw.topic, at_ns, message.joint_names, message.points[0].positions)

    @property
    def points(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The times [N] and the values [N, A] that were taken."""
        width = len(self._contract.action_names)
        return np.asarray(self._times, np.int64), np.asarray(self._points).reshape(-1, width)

    def _parse(self, raw: RawMessage) -> Any:
        if raw.type not in (messages.JOINT_TRAJECTORY, messages.FLOAT64_ARRAY):
            raise MessageError(
                f"{raw.topic}: commands of type {raw.type} cannot be read",
                mend=f"record {messages.JOINT_TRAJECTORY} or {messages.FLOAT64_ARRAY}",
            )
        return messages.from_cdr(raw.data, type_name=raw.type)

    def sample(
        self, at_ns: NDArray[np.int64], *, max_gap_ns: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Targets at those instants: joints linear between two points, the gripper held.

        Returns:
            float32 [T, A], and bool [T]: False where there is no command within `max_gap_ns`.
        """
        width = len(self._contract.action_names)
        if not self._times:
            return np.zeros((len(at_ns), width), np.float32), np.zeros(len(at_ns), bool)
        times = np.asarray(self._times, np.int64)
        points = np.asarray(self._points)
        after = np.clip(np.searchsorted(times, at_ns), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(abs(times[after] - at_ns) <= abs(times[before] - at_ns), after, before)
        hit = abs(times[nearest] - at_ns) <= SNAP_NS
        span = times[after] - times[before]
        inside = (times[before] <= at_ns) & (at_ns <= times[after]) & (span <= max_gap_ns)
        weight = ((at_ns - times[before]) / np.maximum(span, 1))[:, None]
        target = between(self._contract, before=points[before], after=points[after], weight=weight)
        target[hit] = points[nearest[hit]]
        return target.astype(np.float32), hit | inside


class IncrementTrack:
    """Commands that say by how much each joint is to move; the gripper's value is absolute."""

    def __init__(self, contract: RobotContract) -> None:
        self._contract = contract
        self._track = CommandTrack(contract)

    def add(self, raw: RawMessage) -> None:
        """Take one message; raises MessageError as `CommandTrack.add`."""
        self._track.add_at(raw, raw.stamp_ns)

    def sample(
        self, at_ns: NDArray[np.int64], *, state: NDArray[np.float32], step_ns: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Targets [T, A] of the steps that begin at `at_ns` with `state` [T, A], rad and m.

        The increments that came during a step are added up; a step without any is not usable.
        """
        times, points = self._track.points
        first = np.searchsorted(times, at_ns, side="right")
        last = np.searchsorted(times, at_ns + step_ns, side="right")
        sums = np.concatenate([np.zeros((1, state.shape[1])), np.cumsum(points, axis=0)])
        target = state + sums[last] - sums[first]
        usable = last > first
        if self._contract.gripper is not None and len(points):
            target[:, -1] = points[np.maximum(last - 1, 0), -1]
        return target.astype(np.float32), usable


def header_ns(message: Any) -> int:
    """The stamp of a message's header."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec
