"""The leaf that executes a task: success by outcome, cancel on interruption, one goal at a time."""

from __future__ import annotations

from typing import Any

import pytest
from py_trees.common import Status

from fastvla_core.errors import RosError
from fastvla_ros.runtime import ensure_ros


class Goal:
    """A goal that does as the test says."""

    def __init__(self) -> None:
        self.progress: Any = None
        self.end: Any = None
        self.canceled = False

    def poll(self) -> Any:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def cancel(self) -> None:
        self.canceled = True


class Client:
    """A task client without a graph."""

    def __init__(self) -> None:
        self.ready, self.busy = True, False
        self.goals: list[Goal] = []

    def is_ready(self) -> bool:
        return self.ready

    def send(self, task: str, **_: Any) -> Goal:
        self.goals.append(Goal())
        return self.goals[-1]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def leaf(client):
    ensure_ros()
    from fastvla_ros.planner.execute_task import ExecuteTask

    return ExecuteTask("wave", client=client, server_timeout_s=0.0)


def report(error: str = "NONE", outcome: str = "success", message: str = ""):
    from fastvla_ros.nodes.task_goal import GoalReport

    return GoalReport(task="wave", status="", error=error, message=message, outcome=outcome)


def status(leaf) -> Status:
    leaf.tick_once()
    return leaf.status


@pytest.mark.parametrize(
    ("error", "outcome", "expected"),
    [
        ("NONE", "success", Status.SUCCESS),
        ("NONE", "failure", Status.FAILURE),
        ("NONE", "unknown", Status.FAILURE),
        ("TIMEOUT", "unknown", Status.FAILURE),
        ("CANCELED", "unknown", Status.FAILURE),
    ],
)
def test_success_is_that_the_task_was_seen_done(leaf, client, error, outcome, expected):
    assert [status(leaf), status(leaf)] == [Status.RUNNING, Status.RUNNING]
    assert len(client.goals) == 1
    client.goals[0].end = report(error, outcome, "some\n words")
    assert status(leaf) is expected
    assert leaf.reports == [client.goals[0].end]
    assert leaf.feedback_message == f"{error} some words"
    assert not client.goals[0].canceled


def test_an_interruption_cancels_and_leaves_no_report(leaf, client):
    status(leaf)
    leaf.stop(Status.INVALID)
    assert client.goals[0].canceled
    client.goals[0].end = report("CANCELED", "unknown")
    assert status(leaf) is Status.RUNNING
    assert leaf.reports == []
    assert len(client.goals) == 2


def test_a_goal_waits_until_the_one_before_has_ended(leaf, client):
    client.busy = True
    assert status(leaf) is Status.RUNNING
    assert client.goals == []
    client.busy = False
    status(leaf)
    assert len(client.goals) == 1


def test_nobody_serves(leaf, client):
    client.ready = False
    assert status(leaf) is Status.FAILURE
    assert leaf.reports[-1].error == "NO_SERVER"


def test_a_server_that_vanishes_is_a_failure(leaf, client):
    from fastvla_ros.nodes.task_goal import NoServerError

    status(leaf)
    client.goals[0].end = NoServerError("it is gone")
    assert status(leaf) is Status.FAILURE
    assert (leaf.reports[-1].error, leaf.reports[-1].message) == ("NO_SERVER", "it is gone")


def test_a_defect_is_not_taken_for_an_end(leaf, client):
    status(leaf)
    client.goals[0].end = RosError("a defect")
    with pytest.raises(RosError):
        leaf.tick_once()
