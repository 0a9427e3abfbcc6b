"""Follows the goals of the policy server from outside, also when the server is gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NORMAL_ENDS = frozenset({"NONE", "CANCELED", "PREEMPTED", "DEACTIVATED"})
"""Error codes of goals that ended as somebody asked for."""

SERVER_GONE = "SERVER_GONE"
SERVER_SILENT = "SERVER_SILENT"

# The server sends feedback every half second at least.
_SILENT_NS = 3_000_000_000
# Between the status of an end and its result, which says the code.
_RESULT_NS = 2_000_000_000

_ACTIVE = frozenset({1, 2, 3})
"""ACCEPTED, EXECUTING and CANCELING of action_msgs/GoalStatus."""
_ABORTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """An abnormal end of a goal: a code of `ExecuteTask.Result`, or that the server is gone."""

    goal: str
    code: str
    message: str


@dataclass(slots=True, eq=False)
class _Goal:
    heard_ns: int
    aborted_ns: int | None = None
    is_silent: bool = False


class GoalWatch:
    """Finds the abnormal ends in an action's status, results and silence.

    Times are monotonic nanoseconds. Goals are named by the hexadecimal digits of their id.
    """

    def __init__(self) -> None:
        self._goals: dict[str, _Goal] = {}
        self._ended: set[str] = set()

    @property
    def active(self) -> tuple[str, ...]:
        """Goals whose end is not known yet."""
        return tuple(self._goals)

    def on_status(
        self, goals: Iterable[tuple[str, int]], *, now_ns: int
    ) -> tuple[list[str], list[End]]:
        """Take the server's list of goals and their status.

        Returns:
            Goals that are new, whose result should be asked for; and abnormal ends.
        """
        status = dict(goals)
        self._ended &= status.keys()
        new = [goal for goal, value in status.items() if self._is_new(goal, value)]
        for goal in new:
            self._goals[goal] = _Goal(now_ns)
        ends = []
        for goal, known in list(self._goals.items()):
            value = status.get(goal)
            if value is None:
                # A server that was started again knows nothing of it.
                ends += self._finish(goal, SERVER_GONE, "the policy server was started anew")
            elif value == _ABORTED:
                known.aborted_ns = known.aborted_ns or now_ns
            elif value not in _ACTIVE:
                self._finish(goal, "NONE", "")
            else:
                known.heard_ns, known.is_silent = now_ns, False
        return new, ends

    def on_feedback(self, goal: str, *, now_ns: int) -> None:
        """Take a sign of life."""
        known = self._goals.get(goal)
        if known is not None:
            known.heard_ns, known.is_silent = now_ns, False

    def on_result(self, goal: str, *, code: str, message: str) -> list[End]:
        """Take how a goal ended."""
        return self._finish(goal, code, message)

    def look(self, *, now_ns: int, server_there: bool) -> list[End]:
        """Abnormal ends that nobody tells: a server that is gone, or says nothing any more."""
        ends = []
        for goal, known in list(self._goals.items()):
            silent_ns = now_ns - known.heard_ns
            if not server_there:
                ends += self._finish(goal, SERVER_GONE, "the policy server is gone")
            elif known.aborted_ns is not None:
                if now_ns - known.aborted_ns > _RESULT_NS:
                    ends += self._finish(goal, "UNKNOWN", "aborted, and no result came")
            elif silent_ns > _SILENT_NS and not known.is_silent:
                known.is_silent = True
                what = f"the policy server has said nothing for {silent_ns * 1e-9:.1f} s"
                ends.append(End(goal=goal, code=SERVER_SILENT, message=what))
        return ends

    def give_up(self) -> list[End]:
        """The goals that still run, when this process is told to stop and the server is gone."""
        return [
            end
            for goal in list(self._goals)
            for end in self._finish(goal, SERVER_GONE, "the policy server ended before its goal")
        ]

    def _is_new(self, goal: str, status: int) -> bool:
        known = goal in self._goals or goal in self._ended
        # One that is aborted at first sight ended between two messages.
        return not known and (status in _ACTIVE or status == _ABORTED)

    def _finish(self, goal: str, code: str, message: str) -> list[End]:
        known = self._goals.pop(goal, None)
        self._ended.add(goal)
        if known is None or code in NORMAL_ENDS:
            return []
        # The graph notices a killed process only seconds after it fell silent, which was told.
        if known.is_silent and code == SERVER_GONE:
            return []
        return [End(goal=goal, code=code, message=message)]
