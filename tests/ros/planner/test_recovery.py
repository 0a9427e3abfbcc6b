"""Recovery: when the task is tried again, when it is not, and what an interruption leaves."""

from __future__ import annotations

import pytest
from py_trees.behaviour import Behaviour
from py_trees.common import Status

from fastvla_ros.planner.recovery import Recovery

SUCCESS, FAILURE, RUNNING = Status.SUCCESS, Status.FAILURE, Status.RUNNING


class Scripted(Behaviour):
    """Gives back what it was told, one after the other, then the last for ever."""

    def __init__(self, name: str, *script: Status) -> None:
        super().__init__(name)
        self.script, self.entered, self.left = list(script), 0, []

    def initialise(self) -> None:
        self.entered += 1

    def update(self) -> Status:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def terminate(self, new_status: Status) -> None:
        self.left.append(new_status)


def ticked(root: Behaviour, count: int = 50) -> int:
    """Tick until the end; how many ticks it took."""
    for number in range(1, count + 1):
        root.tick_once()
        if root.status is not RUNNING:
            return number
    raise AssertionError("it did not end")


def recovery(task: Behaviour, otherwise: Behaviour, retries: int = 5) -> Recovery:
    return Recovery("r", task=task, recovery=otherwise, retries=retries)


def test_a_task_that_succeeds_needs_no_recovery():
    task, otherwise = Scripted("t", RUNNING, SUCCESS), Scripted("o", SUCCESS)
    root = recovery(task, otherwise)
    assert ticked(root) == 2
    assert root.status is SUCCESS
    assert otherwise.entered == 0


def test_after_a_recovery_the_task_begins_anew():
    task = Scripted("t", RUNNING, FAILURE, RUNNING, SUCCESS)
    otherwise = Scripted("o", RUNNING, SUCCESS)
    root = recovery(task, otherwise)
    ticked(root)
    assert root.status is SUCCESS
    assert (task.entered, otherwise.entered) == (2, 1)


def test_a_recovery_that_fails_says_that_there_is_no_point():
    task, otherwise = Scripted("t", FAILURE), Scripted("o", FAILURE)
    root = recovery(task, otherwise)
    ticked(root)
    assert root.status is FAILURE
    assert task.entered == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_ends_after_the_last_try(retries: int):
    task, otherwise = Scripted("t", FAILURE), Scripted("o", SUCCESS)
    root = recovery(task, otherwise, retries)
    ticked(root)
    assert root.status is FAILURE
    assert (task.entered, otherwise.entered) == (retries + 1, retries)
    ticked(root)
    assert task.entered == 2 * (retries + 1)


@pytest.mark.parametrize("ticks", [1, 3])
def test_an_interruption_reaches_the_child_whose_turn_it_is(ticks: int):
    task, otherwise = Scripted("t", RUNNING, FAILURE, RUNNING), Scripted("o", RUNNING)
    root = recovery(task, otherwise)
    for _ in range(ticks):
        root.tick_once()
    running = task if ticks == 1 else otherwise
    assert running.status is RUNNING
    assert root.tip() is running
    root.stop(Status.INVALID)
    assert running.left[-1] is Status.INVALID
    assert root.status is Status.INVALID
    root.tick_once()
    assert task.entered == 2
