"""Sends one instruction to the policy server and follows it to its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node

from fastvla_msgs.action import ExecuteTask
from fastvla_ros.nodes.action_requests import action_client
from fastvla_ros.nodes.task_goal import GoalReport, NoServerError, Progress, TaskGoal

ACTION_NAME = "policy_server/execute_task"

# Short waits, so that Ctrl-C is served and a server that died is noticed.
_POLL_S = 0.05


class TaskClient:
    """An action client for callers that wait while another thread spins the node."""

    def __init__(self, node: Node, *, action_name: str = ACTION_NAME) -> None:
        self._client = action_client(node, ExecuteTask, action_name)
        self._name = action_name
        self._latest: TaskGoal | None = None

    def destroy(self) -> None:
        """Leave the graph."""
        self._client.destroy()

    def is_ready(self) -> bool:
        """Whether somebody serves the action."""
        return bool(self._client.server_is_ready())

    @property
    def busy(self) -> bool:
        """Whether the latest goal of this client has not ended; one that is lost has."""
        try:
            return self._latest is not None and self._latest.poll() is None
        except NoServerError:
            return False

    def wait_for_server(self, *, timeout_s: float) -> None:
        """Wait until the action is served.

        Raises:
            NoServerError: nobody serves it within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not self._client.server_is_ready():
            if time.monotonic() > deadline:
                raise NoServerError(
                    f"no policy server: nobody serves the action '{self._name}' "
                    f"(waited {timeout_s:g} s)",
                    mend="start it with `fastvla bringup`; namespace and ROS_DOMAIN_ID must match",
                )
            time.sleep(0.02)

    def send(
        self,
        task: str,
        *,
        timeout_s: float = 0.0,
        on_progress: Callable[[Progress], None] | None = None,
        answer_timeout_s: float = 5.0,
    ) -> TaskGoal:
        """Send one goal and come back at once; the action must be served, see `is_ready`.

        Args:
            timeout_s: Deadline of the goal; 0 uses the server's parameter.
            answer_timeout_s: How long the server may take to accept or reject.
        """
        self._latest = TaskGoal(
            self._client,
            ExecuteTask.Goal(task=task, timeout_s=float(timeout_s)),
            name=self._name,
            answer_timeout_s=answer_timeout_s,
            on_progress=on_progress,
        )
        return self._latest

    def execute(
        self,
        task: str,
        *,
        timeout_s: float = 0.0,
        on_progress: Callable[[Progress], None] | None = None,
        server_timeout_s: float = 5.0,
        watch: Callable[[], None] | None = None,
    ) -> GoalReport:
        """Run one goal to its end; KeyboardInterrupt cancels it and waits for the result.

        Args:
            timeout_s: Deadline of the goal; 0 uses the server's parameter.
            watch: Called while waiting; what it raises ends the waiting.

        Raises:
            NoServerError: the action is not served, or the server does not answer.
        """
        self.wait_for_server(timeout_s=server_timeout_s)
        goal = self.send(
            task, timeout_s=timeout_s, on_progress=on_progress, answer_timeout_s=server_timeout_s
        )
        try:
            return _followed(goal, watch=watch)
        # The goal is on its way and must not run on without us.
        except KeyboardInterrupt:
            goal.cancel()
            return _followed(goal, watch=watch)


def _followed(goal: TaskGoal, *, watch: Callable[[], None] | None) -> GoalReport:
    while (report := goal.poll()) is None:
        if watch is not None:
            watch()
        goal.wait(_POLL_S)
    return report
