"""Goals with random cancels while nodes die, cameras fail and disks are full: each ends rightly."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from fastvla_core.errors import FastVLAError, RosError
from fastvla_ros.bench.soak.faults_ground import START_TIMEOUT_S, Ground, prepared
from fastvla_ros.bench.soak.inject import Injection
from fastvla_ros.bench.soak.judge import GoalOutcome, Judge
from fastvla_ros.bench.soak.kept import KeptEnds
from fastvla_ros.bench.soak.plan import LOST, GoalPlan, make_plans
from fastvla_ros.bench.soak.violations import Violations

# Half of a robot's: what is judged here is how goals end, also on a machine that does other work.
CAMERA_HZ = 15.0
# Nobody can judge it, so it runs to its deadline.
TASK = "sway"
_SERVER = "policy_server"
_POLL_S = 0.005
_ANSWER_TIMEOUT_S = 20.0
# Whatever happens, no goal may go on for longer than its deadline and this.
_GIVE_UP_S = 40.0
_BAGS_S = 60.0


def run_faults(*, goals: int, seed: int) -> tuple[dict[str, Any], Violations]:
    """Run so many goals; Ctrl-C ends it early, with what was found until then.

    Raises:
        FastVLAError: the graph does not come up.
    """
    violations = Violations("faults", seed=seed)
    with prepared(camera_hz=CAMERA_HZ) as ground:
        run = _Run(ground, violations)
        done = 0
        try:
            for plan in make_plans(goals, seed=seed):
                run.goal(plan)
                done += 1
        except KeyboardInterrupt:
            pass
        # Nothing more can be learnt when a node does not come back.
        except FastVLAError as error:
            violations.add(f"given up: {error}", where=f"goal {done}")
        return {"goals": done, **run.finish()}, violations


class _Run:
    def __init__(self, ground: Ground, violations: Violations) -> None:
        self._ground, self._violations = ground, violations
        self._judge = Judge(ground.operator, violations)
        self._kept = KeptEnds(ground.bags, violations)
        self._faults: Counter[str] = Counter()
        self._cancels = 0

    def goal(self, plan: GoalPlan) -> None:
        """Run one goal, break what its plan says, judge, mend."""
        where = f"goal {plan.number}, {plan.fault}, seed {plan.seed}"
        injection = Injection(plan, self._ground)
        try:
            injection.prepare()
            self._judge.begin(where=where)
            self._late_s()
            outcome = self._pursue(plan, injection, where=where)
            self._judge.end(plan, outcome, late_s=self._late_s(), where=where)
            self._kept.add(plan, outcome)
            self._look_after_nodes(where=where, broken=plan.fault)
            for wrong in injection.heal():
                self._violations.add(wrong, where=where)
        except FastVLAError as error:
            self._violations.add(str(error), where=where)
            injection.abandon()
            self._look_after_nodes(where=where, broken=plan.fault)
            # A goal that still runs would have all the others rejected.
            self._ground.cell.nodes[_SERVER].interrupt()
            self._start_what_ended()
            self._judge.give_up()
        self._kept.look(plan, where=where)

    def finish(self) -> dict[str, Any]:
        """Wait for the last bags, and say what it came to."""
        return {
            "cancels": self._cancels,
            "faults": dict(sorted(self._faults.items())),
            **self._judge.figures(),
            **self._kept.finish(timeout_s=_BAGS_S),
            "took_s": round(self._violations.elapsed_s, 1),
        }

    def _pursue(self, plan: GoalPlan, injection: Injection, *, where: str) -> GoalOutcome:
        """Send the goal and follow it to its end.

        Raises:
            RosError: it does not end.
        """
        goal = self._ground.operator.client.send(
            TASK, timeout_s=plan.timeout_s, answer_timeout_s=_ANSWER_TIMEOUT_S
        )
        begin_s, canceled = time.monotonic(), False
        while True:
            try:
                report = goal.poll()
            except RosError as error:
                return GoalOutcome(
                    goal=goal.id, code=LOST, message=error.message, commands_sent=None
                )
            if report is not None:
                return GoalOutcome(
                    goal=goal.id,
                    code=report.error,
                    message=report.message,
                    commands_sent=report.commands_sent,
                )
            passed_s = time.monotonic() - begin_s
            if not canceled and plan.cancels_at(passed_s):
                goal.cancel()
                canceled = True
                self._cancels += 1
            if not injection.begun and plan.breaks_at(passed_s):
                self._break(plan, injection, where=where)
            injection.go_on()
            if passed_s > plan.longest_s + _GIVE_UP_S:
                raise RosError(f"the goal has not ended after {passed_s:.0f} s")
            goal.wait(_POLL_S)

    def _late_s(self) -> float:
        return max(camera.take_late_s() for camera in self._ground.cameras.values())

    def _break(self, plan: GoalPlan, injection: Injection, *, where: str) -> None:
        injection.begin()
        self._faults[plan.fault] += 1
        if plan.fault == f"kill {_SERVER}":
            # Nobody is left who could say how it ended; it is the guard that stops the robot.
            self._judge.expect_no_more_commands(where=where)
            self._judge.expect_at_rest(where=where)
            self._ground.cell.start(_SERVER)

    def _look_after_nodes(self, *, where: str, broken: str) -> None:
        """A node that ended although nobody ended it is a violation; it is started again."""
        cell = self._ground.cell
        unexpected = [node for node in cell.ended() if not broken.endswith(node.name)]
        for node in unexpected:
            self._violations.add(
                f"{node.name} ended with {node.status}: {cell.last_words(node.name)}", where=where
            )
        if unexpected:
            self._start_what_ended()

    def _start_what_ended(self) -> None:
        cell, now_s = self._ground.cell, time.monotonic()
        for node in cell.ended():
            cell.start(node.name)
        self._ground.health.wait(cell, since_s=now_s, timeout_s=START_TIMEOUT_S)
