"""Whether a goal ended as it should: the code, the commands, the robot at rest."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fastvla_ros.bench.soak.goals import Operator
from fastvla_ros.bench.soak.plan import Fault, GoalPlan
from fastvla_ros.bench.soak.violations import Violations

QUIET_S = 0.15
"""How long to listen for a command that must not come."""

_POLL_S = 0.005
_LAST_COMMANDS_S = 2.0
# Half of what the server waits for a stream: on such a machine it is right to give up.
_STARVED_S = 1.0
# The guard holds 0.2 s after the last command; a busy machine is slower.
_HOLD_S = 2.0
# Without guard or robot nothing moves, and nothing is sent on any more.
_NOBODY_MOVES: frozenset[Fault] = frozenset(
    {"kill command_guard", "kill sim_robot", "restart sim_robot"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalOutcome:
    """How a goal ended for its client.

    Attributes:
        goal: Its id; "" when it was never accepted.
        code: An error code, or `plan.LOST`.
        commands_sent: What the server says; None where it cannot.
    """

    goal: str
    code: str
    message: str
    commands_sent: int | None


class Judge:
    """Notes what is wrong, and counts."""

    def __init__(self, operator: Operator, violations: Violations) -> None:
        self._operator, self._violations = operator, violations
        self._codes: Counter[str] = Counter()
        self._seen = self._commands = self._unseen = self._starved = 0

    def begin(self, *, where: str) -> None:
        """A goal begins: nothing may have been commanded since the one before."""
        operator = self._operator
        late = operator.commands.count - self._seen
        self._violations.expect(
            late <= 0, f"{late} commands came between the goal before and this one", where=where
        )
        operator.commands.forget()
        operator.outputs.forget()
        self._seen = 0

    def end(self, plan: GoalPlan, outcome: GoalOutcome, *, late_s: float, where: str) -> None:
        """A goal ended.

        Args:
            late_s: For how long the robot itself had no fresh picture to offer [s].
        """
        self._codes[outcome.code] += 1
        starved = outcome.code == "STALE_SENSOR" and late_s > _STARVED_S
        as_expected = outcome.code in plan.expected
        self._starved += starved and not as_expected
        expected = " or ".join(sorted(plan.expected))
        self._violations.expect(
            as_expected or starved,
            f"ended with {outcome.code} ({outcome.message}), expected {expected}; the robot's "
            f"pictures were late for {late_s:.2f} s",
            where=where,
        )
        if plan.fault in ("drop camera", "delay camera") and as_expected and not starved:
            self._violations.expect(
                plan.camera in outcome.message,
                f"{plan.camera} is not named: {outcome.message}",
                where=where,
            )
        self._count_commands(outcome, where=where)
        if plan.fault not in _NOBODY_MOVES:
            self.expect_at_rest(where=where)

    def expect_at_rest(self, *, where: str) -> None:
        """The guard holds the robot, or does so in a moment."""
        outputs = self._operator.outputs
        deadline = time.monotonic() + _HOLD_S
        while not outputs.at_rest and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._violations.expect(outputs.at_rest, "the robot was not stopped", where=where)

    def expect_no_more_commands(self, *, where: str) -> None:
        """Nobody commands any more, once what is on its way has come."""
        commands = self._operator.commands
        time.sleep(QUIET_S)
        before = commands.count
        time.sleep(QUIET_S)
        late = commands.count - before
        self._violations.expect(
            not late, f"{late} commands came after the server was killed", where=where
        )

    def give_up(self) -> None:
        """A goal did not end, and everything was started anew: what came until now is past."""
        self._seen = self._operator.commands.count

    def figures(self) -> dict[str, Any]:
        """What was counted."""
        return {
            "codes": dict(sorted(self._codes.items())),
            "starved": self._starved,
            "commands_seen": self._commands,
            "commands_not_seen": self._unseen,
        }

    def _count_commands(self, outcome: GoalOutcome, *, where: str) -> None:
        sent = outcome.commands_sent
        self._seen = self._operator.commands.settle(
            expected=sent or 0, quiet_s=QUIET_S, timeout_s=_LAST_COMMANDS_S
        )
        self._commands += self._seen
        if sent is None:
            return
        # A listener that has no time may miss some; more than were sent come after the end.
        self._unseen += max(0, sent - self._seen)
        self._violations.expect(
            self._seen <= sent, f"{self._seen - sent} commands came after the end", where=where
        )
