"""Which goals are run, when they are canceled, and what is broken meanwhile: from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

CAMERAS = ("front", "wrist")

Fault = Literal[
    "none",
    "kill policy_server",
    "kill command_guard",
    "kill sim_robot",
    "kill black_box",
    "restart sim_robot",
    "restart command_guard",
    "drop camera",
    "drop camera for a moment",
    "delay camera",
    "jitter camera",
    "fill the black box's disk",
    "fill the recorder's disk",
    "kill the recorder",
]

LOST = "SERVER_LOST"
"""How a goal ends for its client when the server is gone: no result can come."""

EXPECTED: dict[Fault, frozenset[str]] = {
    "none": frozenset({"TIMEOUT"}),
    "kill policy_server": frozenset({LOST}),
    "kill command_guard": frozenset({"CONTROLLER_LOST"}),
    "kill sim_robot": frozenset({"STALE_SENSOR"}),
    "kill black_box": frozenset({"TIMEOUT"}),
    # It holds until the controller's joint states are back, or has waited for too long.
    "restart sim_robot": frozenset({"TIMEOUT", "STALE_SENSOR"}),
    # A guard that is told to stop says so.
    "restart command_guard": frozenset({"SAFETY_STOP"}),
    "drop camera": frozenset({"STALE_SENSOR"}),
    "drop camera for a moment": frozenset({"TIMEOUT"}),
    "delay camera": frozenset({"STALE_SENSOR"}),
    "jitter camera": frozenset({"TIMEOUT"}),
    "fill the black box's disk": frozenset({"TIMEOUT"}),
    "fill the recorder's disk": frozenset({"TIMEOUT"}),
    "kill the recorder": frozenset({"TIMEOUT"}),
}
FAULTS: tuple[Fault, ...] = tuple(fault for fault in EXPECTED if fault != "none")

# Longer than whatever must end the goal instead: 2 s of a silent sensor, 3 s of a silent guard.
_LONG_S = 12.0
_LONG: tuple[Fault, ...] = (
    "kill policy_server", "kill command_guard", "kill sim_robot", "restart command_guard",
    "drop camera", "delay camera",
)  # fmt: skip
_MEDIUM_S = 4.0
_MEDIUM: tuple[Fault, ...] = (
    "restart sim_robot", "drop camera for a moment", "fill the black box's disk",
    "fill the recorder's disk",
)  # fmt: skip
_ORDINARY_EVERY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalPlan:
    """One goal.

    Attributes:
        seed: Of everything that is chosen while it runs.
        timeout_s: Its deadline.
        cancel_after_s: When it is canceled, from sending on; None is never.
        fault_after_s: When the fault begins.
        fault_s: How long it lasts, where it does not last to the end.
        camera: Which one is broken.
        expected: Error codes that are right.
    """

    number: int
    seed: int
    fault: Fault
    timeout_s: float
    cancel_after_s: float | None
    fault_after_s: float
    fault_s: float
    camera: str
    expected: frozenset[str]

    @property
    def longest_s(self) -> float:
        """When it must have ended: at its deadline, or soon after its cancel."""
        return self.timeout_s if self.cancel_after_s is None else self.cancel_after_s

    def cancels_at(self, passed_s: float) -> bool:
        """Whether it is to be canceled by now."""
        return self.cancel_after_s is not None and passed_s >= self.cancel_after_s

    def breaks_at(self, passed_s: float) -> bool:
        """Whether something is to be broken by now."""
        return self.fault != "none" and passed_s >= self.fault_after_s


def make_plans(goals: int, *, seed: int) -> list[GoalPlan]:
    """Plans of so many goals: every fault in turn, each turn in another order; cancels between."""
    chance = random.Random(seed)
    every = max(1, min(_ORDINARY_EVERY, goals // len(FAULTS)))
    waiting: list[Fault] = []
    plans = []
    for number in range(goals):
        if number % every == every - 1:
            waiting = waiting or chance.sample(FAULTS, len(FAULTS))
            plans.append(_with_fault(number, waiting.pop(), chance))
        else:
            plans.append(_without_fault(number, chance))
    return plans


def _without_fault(number: int, chance: random.Random) -> GoalPlan:
    kind = chance.choice(("cancel", "cancel", "cancel", "cancel near the end", "deadline"))
    timeout_s = chance.uniform(0.3, 1.0) if kind != "cancel" else 60.0
    cancel_s = {
        "cancel": chance.choice((0.0, chance.uniform(0.0, 0.15), chance.uniform(0.1, 1.0))),
        "cancel near the end": max(0.0, timeout_s + chance.uniform(-0.05, 0.05)),
        "deadline": None,
    }[kind]
    expected = {
        "cancel": frozenset({"CANCELED"}),
        "cancel near the end": frozenset({"CANCELED", "TIMEOUT"}),
        "deadline": EXPECTED["none"],
    }[kind]
    return GoalPlan(
        number=number,
        seed=chance.getrandbits(32),
        fault="none",
        timeout_s=timeout_s,
        cancel_after_s=cancel_s,
        fault_after_s=0.0,
        fault_s=0.0,
        camera="",
        expected=expected,
    )


def _with_fault(number: int, fault: Fault, chance: random.Random) -> GoalPlan:
    timeout_s = _LONG_S if fault in _LONG else _MEDIUM_S if fault in _MEDIUM else 1.5
    return GoalPlan(
        number=number,
        seed=chance.getrandbits(32),
        fault=fault,
        timeout_s=timeout_s,
        cancel_after_s=None,
        fault_after_s=chance.uniform(0.3, 0.9),
        fault_s=chance.uniform(0.2, 1.0),
        camera=chance.choice(CAMERAS),
        expected=EXPECTED[fault],
    )
