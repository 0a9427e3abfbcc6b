"""Which ends of goals the black box must tell of, and whether it does."""

from __future__ import annotations

import time
from typing import Any

from fastvla_ros.bench.soak.bags import BagLog
from fastvla_ros.bench.soak.judge import GoalOutcome
from fastvla_ros.bench.soak.plan import LOST, GoalPlan
from fastvla_ros.bench.soak.violations import Violations

# Ends that somebody asked for.
_NORMAL = frozenset({"NONE", "CANCELED"})
_WHERE = "black box"
_POLL_S = 0.2


class KeptEnds:
    """Compares the ends of goals with what the bags say."""

    def __init__(self, bags: BagLog, violations: Violations) -> None:
        self._bags, self._violations = bags, violations
        self._due: dict[str, str] = {}
        self._excused = 0

    def add(self, plan: GoalPlan, outcome: GoalOutcome) -> None:
        """A goal ended; where the box itself was broken, nothing is asked of it."""
        if outcome.code not in _NORMAL and outcome.goal and "black" not in plan.fault:
            self._due[outcome.goal] = outcome.code

    def look(self, plan: GoalPlan, *, where: str) -> None:
        """Read the bags that are new."""
        for wrong in self._bags.look():
            self._violations.add(wrong, where=where)
        if "black" in plan.fault:
            # What it had not written when it was killed, or could not write, is not to come.
            for goal in self._missing():
                del self._due[goal]
                self._excused += 1

    def finish(self, *, timeout_s: float) -> dict[str, Any]:
        """Wait for the last bags, judge, and say what it came to."""
        deadline = time.monotonic() + timeout_s
        while self._missing() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            for wrong in self._bags.look():
                self._violations.add(wrong, where=_WHERE)
        for goal, code in self._missing().items():
            self._violations.add(f"no bag tells of goal {goal}, {code}", where=_WHERE)
        for goal, code in sorted(self._bags.ends):
            ended = self._due.get(goal, code)
            # Of a server that is gone the box says so in words of its own.
            self._violations.expect(
                ended in (code, LOST), f"goal {goal}: {ended}, in its bag {code}", where=_WHERE
            )
        return {
            "ends_to_keep": len(self._due),
            "ends_excused": self._excused,
            "bags_read": self._bags.read,
        }

    def _missing(self) -> dict[str, str]:
        told = {goal for goal, _ in self._bags.ends}
        return {goal: code for goal, code in self._due.items() if goal not in told}
