"""The task client against servers that reject, fall silent, die, or come back as others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastvla_ros.nodes.task_cli import exit_status
from tests.ros.nodes.robot_rig import TASK, System, wait_until


class FakeServer:
    """Serves the policy server's action: accepts, gives feedback, and ends when it is told to.

    Attributes:
        answer: Kept waiting before a goal is accepted.
        canceled: Whether a cancel came in.
    """

    def __init__(self, system: System, *, accept: bool = True, feedback: bool = True) -> None:
        from rclpy.action import ActionServer, CancelResponse, GoalResponse
        from rclpy.callback_groups import ReentrantCallbackGroup

        from fastvla_msgs.action import ExecuteTask

        self._kind = ExecuteTask
        self._feedback = feedback
        self.answer, self.done = threading.Event(), threading.Event()
        self.asked, self.canceled = threading.Event(), threading.Event()
        self.answer.set()

        def on_goal(_request: Any) -> Any:
            self.asked.set()
            assert self.answer.wait(10)
            return GoalResponse.ACCEPT if accept else GoalResponse.REJECT

        def on_cancel(_handle: Any) -> Any:
            self.canceled.set()
            return CancelResponse.ACCEPT

        self.server = ActionServer(
            system.robot, ExecuteTask, "policy_server/execute_task", self._execute,
            goal_callback=on_goal, cancel_callback=on_cancel,
            callback_group=ReentrantCallbackGroup(),
        )  # fmt: skip

    def _execute(self, handle: Any) -> Any:
        while not self.done.wait(0.1):
            if handle.is_cancel_requested:
                handle.canceled()
                return self._kind.Result(error_code=self._kind.Result.CANCELED)
            if self._feedback:
                handle.publish_feedback(self._kind.Feedback(state=2))
        if handle.is_active:
            handle.succeed()
        return self._kind.Result(outcome=self._kind.Result.OUTCOME_SUCCESS)

    def vanish(self) -> None:
        """Leave the graph, as a process does that is killed."""
        self.server.destroy()


@pytest.fixture
def serve(system: System):
    servers: list[FakeServer] = []

    def start(**options: bool) -> FakeServer:
        servers.append(FakeServer(system, **options))
        system.client.wait_for_server(timeout_s=10)
        return servers[-1]

    yield start
    for server in servers:
        server.answer.set()
        server.done.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience in tenths of a second; the fake servers speak as often."""
    from fastvla_ros.nodes import task_goal

    monkeypatch.setattr(task_goal, "_ASK_AGAIN_S", 0.5)
    monkeypatch.setattr(task_goal, "_SILENT_S", 3.0)


def interrupting(*conditions: Callable[[], bool]) -> Callable[[], None]:
    """A watch that presses Ctrl-C once for each condition, when it is met."""
    waiting = list(conditions)

    def watch() -> None:
        if waiting and waiting[0]():
            waiting.pop(0)
            raise KeyboardInterrupt

    return watch


def test_a_goal_that_is_done_is_a_success(system: System, serve):
    server = serve()
    report = system.client.execute(TASK, on_progress=lambda _: server.done.set())
    assert (report.status, report.outcome, exit_status(report)) == ("SUCCEEDED", "success", 0)


def test_a_rejected_goal_says_so(system: System, serve):
    serve(accept=False)
    report = system.client.execute(TASK)
    assert (report.status, report.error, exit_status(report)) == ("REJECTED", "REJECTED", 4)


def test_nobody_serves(system: System):
    from fastvla_ros.nodes.task_client import NoServerError

    with pytest.raises(NoServerError, match="nobody serves the action"):
        system.client.execute(TASK, server_timeout_s=0.2)


def test_a_server_that_does_not_answer_the_goal(system: System, serve):
    from fastvla_ros.nodes.task_client import NoServerError

    serve().answer.clear()
    with pytest.raises(NoServerError, match="does not answer"):
        system.client.execute(TASK, server_timeout_s=0.5)


def test_a_goal_that_nobody_waits_for_any_more_is_canceled(system: System, serve, impatient):
    from fastvla_ros.nodes.task_client import NoServerError

    late = serve()
    late.answer.clear()
    with pytest.raises(NoServerError, match="does not answer"):
        system.client.execute(TASK, server_timeout_s=0.5)
    late.answer.set()
    wait_until(late.canceled.is_set, what="the cancel of a goal that was accepted late")
    late.vanish()
    silent = serve(feedback=False)
    with pytest.raises(NoServerError, match="has said nothing"):
        system.client.execute(TASK)
    wait_until(silent.canceled.is_set, what="the cancel of a goal that is silent")


def test_an_answer_that_comes_at_once_is_not_lost(system: System, serve, monkeypatch):
    import sys

    from rclpy.action import ActionClient

    class SlowFuture(sys.modules[ActionClient.__module__].Future):
        """Made by rclpy between sending a request and noting it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.2)
            super().__init__(*args, **kwargs)

    server = serve()
    monkeypatch.setattr(sys.modules[ActionClient.__module__], "Future", SlowFuture)
    report = system.client.execute(TASK, watch=interrupting(server.asked.is_set))
    assert report.status == "CANCELED"


def test_a_server_that_dies_is_noticed(system: System, serve, impatient):
    from fastvla_ros.nodes.task_client import NoServerError

    server = serve()
    with pytest.raises(NoServerError, match="is gone"):
        system.client.execute(TASK, on_progress=lambda _: server.vanish())


def test_a_server_that_hangs_is_noticed(system: System, serve, impatient):
    from fastvla_ros.nodes.task_client import NoServerError

    serve(feedback=False)
    with pytest.raises(NoServerError, match="has said nothing for 3 s"):
        system.client.execute(TASK)


def test_a_server_that_comes_back_does_not_know_the_goal(system: System, serve, impatient):
    from fastvla_ros.nodes.task_goal import ServerRestartedError

    first = serve()
    restarted: list[FakeServer] = []

    def restart() -> None:
        if first.asked.is_set() and not restarted:
            first.done.set()
            first.vanish()
            restarted.append(serve())

    with pytest.raises(ServerRestartedError, match="the goal is lost"):
        system.client.execute(TASK, watch=restart)


def test_ctrl_c_cancels_and_waits_for_the_result(system: System, serve):
    server = serve()
    report = system.client.execute(TASK, watch=interrupting(server.asked.is_set))
    assert (report.status, report.error, exit_status(report)) == ("CANCELED", "CANCELED", 130)


def test_ctrl_c_before_the_goal_is_accepted_cancels_it_too(system: System, serve):
    server = serve()
    server.answer.clear()
    threading.Timer(0.5, server.answer.set).start()
    report = system.client.execute(TASK, watch=interrupting(server.asked.is_set))
    assert server.canceled.is_set()
    assert report.status == "CANCELED"


def test_a_second_ctrl_c_does_not_wait_any_longer(system: System, serve):
    server = serve()
    watch = interrupting(server.asked.is_set, lambda: True, lambda: True)
    with pytest.raises(KeyboardInterrupt):
        system.client.execute(TASK, watch=watch)
    wait_until(server.canceled.is_set, what="the cancel")


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        ("NONE", "success", 0),
        ("NONE", "failure", 1),
        ("NONE", "unknown", 1),
        ("STALE_SENSOR", "unknown", 1),
        ("SAFETY_STOP", "unknown", 1),
        ("REJECTED", "unknown", 4),
        ("TIMEOUT", "unknown", 5),
        ("CANCELED", "unknown", 130),
    ],
)
def test_each_end_has_its_exit_status(error: str, outcome: Any, status: int):
    from fastvla_ros.nodes.task_client import GoalReport

    report = GoalReport(task=TASK, status="", error=error, message="", outcome=outcome)
    assert exit_status(report) == status
