"""Cancelling at any moment: always CANCELED, soon, and nothing follows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.ros.nodes.goal_calls import GoalCaller, SteadyPolicy, done
from tests.ros.nodes.robot_rig import CONTRACT, Stalls, System, wait_until

CANCELS = 200
STOP_S = 0.1
# The cancel, the tick, the command and its arrival each wait for a thread to run.
HOPS = 4


@dataclass(frozen=True)
class Cancel:
    """When to cancel, from the acceptance on [s]; a short deadline ends the goal by itself."""

    after_s: float
    timeout_s: float = 0.0


def random_cancels(count: int) -> list[Cancel]:
    """At once, before and during the first inference, in the motion, and at the finish."""
    random = np.random.default_rng(7)
    kinds = [
        lambda: Cancel(after_s=0.0),
        lambda: Cancel(after_s=random.uniform(0.0, 0.12)),
        lambda: Cancel(after_s=random.uniform(0.1, 0.35)),
        lambda: Cancel(after_s=0.2 + random.uniform(-0.04, 0.04), timeout_s=0.2),
    ]
    return [kinds[number % len(kinds)]() for number in range(count)]


class Canceler:
    """Runs one goal after the other, and cancels each."""

    def __init__(self, system: System) -> None:
        self._robot = system.robot
        self._goals = GoalCaller(system)
        self._old: Any = None
        self.stop_s: list[float] = []
        self.finished_first = 0

    def run(self, cancel: Cancel, stalls: Stalls) -> None:
        before = len(self._robot.commands)
        handle = self._goals.begin(timeout_s=cancel.timeout_s)
        assert handle.accepted
        late = self._old.cancel_goal_async() if self._old is not None else None
        result = handle.get_result_async()
        stalls.take_s()
        time.sleep(cancel.after_s)
        canceled_at = time.monotonic()
        ended = result.done()
        answer = done(handle.cancel_goal_async(), what="the answer to a cancel")
        end = done(result, what="the result")
        if late is not None:
            assert not done(late).goals_canceling, "a late cancel of an old goal was accepted"
        self._check(end, accepted=bool(answer.goals_canceling), short=cancel.timeout_s > 0)
        wait_until(lambda: len(self._robot.commands) - before >= end.result.commands_sent)
        time.sleep(0.02)
        commands = self._robot.commands[before:]
        assert len(commands) == end.result.commands_sent, "a command came after the result"
        if commands and not ended:
            self._measure(commands[-1], canceled_at, stalls.take_s())
        self._old = handle

    def _check(self, end: Any, *, accepted: bool, short: bool) -> None:
        codes = self._goals.kind.Result
        if accepted:
            assert (end.status, end.result.error_code) == (5, codes.CANCELED)
            return
        # Too late: it had ended by itself, and says so.
        assert short
        assert (end.status, end.result.error_code) == (6, codes.TIMEOUT)
        self.finished_first += 1

    def _measure(self, last: Any, canceled_at: float, stall_s: float) -> None:
        at, message = last
        # Without a fresh joint state there is no hold; the guard's watchdog sees to it then.
        if not np.any(message.points[0].velocities):
            self.stop_s.append(at - canceled_at)
        else:
            assert HOPS * stall_s > CONTRACT.joint_states.max_age_s, "the last command is no hold"
        assert at - canceled_at < STOP_S + HOPS * stall_s


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_canceled_at_200_random_moments_in_a_row(
    system: System, steady: SteadyPolicy, capsys: pytest.CaptureFixture[str]
):
    steady.latency_s = 0.03
    system.serve("steady")
    canceler = Canceler(system)
    with Stalls() as stalls:
        for cancel in random_cancels(CANCELS):
            canceler.run(cancel, stalls)
    assert len(canceler.stop_s) > CANCELS / 3
    assert np.median(canceler.stop_s) < STOP_S
    with capsys.disabled():
        p50, p99 = np.percentile(canceler.stop_s, [50, 99]) * 1e3
        print(
            f"\n{CANCELS} cancels: last command {p50:.0f} ms (p50), {p99:.0f} ms (p99) after the "
            f"cancel; {canceler.finished_first} goals had ended before it"
        )
