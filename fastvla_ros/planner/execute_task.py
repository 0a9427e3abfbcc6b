"""A behaviour tree's leaf that has the policy server carry out one instruction."""

from __future__ import annotations

import time

from py_trees.behaviour import Behaviour
from py_trees.common import Status

from fastvla_ros.nodes.task_client import TaskClient
from fastvla_ros.nodes.task_goal import GoalReport, NoServerError, TaskGoal

NO_SERVER = "NO_SERVER"
"""`GoalReport.error` where nobody serves the action, or who served it is gone."""


class ExecuteTask(Behaviour):
    """Sends a goal when it is entered; RUNNING until it has ended.

    SUCCESS means that the task was seen done (`outcome`), not that the goal ended well: nobody
    may have looked. Where another branch takes over, the goal is canceled, and the next goal of
    the same client waits until it has ended. No tick waits for anything.

    Args:
        task: The instruction.
        client: Shared by all leaves; another thread spins its node.
        timeout_s: Deadline of the goal; 0 uses the server's parameter.
        server_timeout_s: How long to wait for a server, and for its answer.

    Attributes:
        reports: How the goals of this leaf ended, newest last; those that the tree canceled itself
            are not among them.
    """

    def __init__(
        self,
        task: str,
        *,
        client: TaskClient,
        timeout_s: float = 0.0,
        server_timeout_s: float = 5.0,
    ) -> None:
        super().__init__(task)
        self.task = task
        self.reports: list[GoalReport] = []
        self._client = client
        self._timeout_s, self._server_timeout_s = timeout_s, server_timeout_s
        self._goal: TaskGoal | None = None
        self._entered_s = 0.0

    def initialise(self) -> None:
        """The leaf is entered."""
        self._entered_s = time.monotonic()

    def update(self) -> Status:
        """Send the goal, or look how it is doing."""
        try:
            report = self._advance()
        except NoServerError as error:
            report = GoalReport(
                task=self.task, status="", error=NO_SERVER, message=str(error), outcome="unknown"
            )
        if report is None:
            return Status.RUNNING
        self._goal = None
        self.reports.append(report)
        self.feedback_message = " ".join(f"{report.error} {report.message}".split())
        return Status.SUCCESS if report.outcome == "success" else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Cancel the goal when another branch has taken over, or the tree is stopped."""
        if new_status is Status.INVALID and self._goal is not None:
            self._goal.cancel()
            self._goal = None

    def _advance(self) -> GoalReport | None:
        if self._goal is not None:
            report = self._goal.poll()
            self._tell(self._goal)
            return report
        if self._client.busy:
            self.feedback_message = "waits for the goal before it to end"
        elif self._client.is_ready():
            self._goal = self._client.send(
                self.task, timeout_s=self._timeout_s, answer_timeout_s=self._server_timeout_s
            )
        elif time.monotonic() - self._entered_s > self._server_timeout_s:
            raise NoServerError("nobody serves the action", mend="start it with `fastvla bringup`")
        return None

    def _tell(self, goal: TaskGoal) -> None:
        if goal.progress is not None:
            blocked = goal.progress.blocking_stream
            self.feedback_message = goal.progress.state + (f", no {blocked}" if blocked else "")
