"""Sends one instruction to the policy server and follows it to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

from fastvla_core.errors import RosError
from fastvla_msgs.action import ExecuteTask

ACTION_NAME = "policy_server/execute_task"

Outcome = Literal["unknown", "success", "failure"]

_OUTCOMES: dict[int, Outcome] = {
    ExecuteTask.Result.OUTCOME_UNKNOWN: "unknown",
    ExecuteTask.Result.OUTCOME_SUCCESS: "success",
    ExecuteTask.Result.OUTCOME_FAILURE: "failure",
}
_ERRORS = (
    "NONE", "CANCELED", "TIMEOUT", "PREEMPTED", "DEACTIVATED", "STALE_SENSOR", "SAFETY_STOP",
    "INVALID_ACTION", "INFERENCE_FAILED", "CONTROLLER_LOST", "UNKNOWN",
)  # fmt: skip
_STATES = ("WAITING_SENSORS", "INFERRING", "EXECUTING", "HOLDING", "STOPPING")
_STATUSES = {
    GoalStatus.STATUS_SUCCEEDED: "SUCCEEDED",
    GoalStatus.STATUS_CANCELED: "CANCELED",
    GoalStatus.STATUS_ABORTED: "ABORTED",
}


# A running goal gives feedback twice a second; a machine that is overloaded is slower.
_POLL_S = 0.05
_LOST_S = 1.0
_ASK_AGAIN_S = 2.0
_SILENT_S = 15.0


class NoServerError(RosError):
    """Nobody serves the action, or who served it is gone."""


class ServerRestartedError(NoServerError):
    """The server was started anew while a goal ran, and does not know the goal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One feedback of a running goal; times in s."""

    state: str
    elapsed_s: float
    chunk_index: int
    queue_depth: int
    inference_s: float
    oldest_age_s: float
    blocking_stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalReport:
    """How a goal ended (`status`, `error`) and whether the task was done (`outcome`)."""

    task: str
    status: str
    error: str
    message: str
    outcome: Outcome
    elapsed_s: float = 0.0
    inferences: int = 0
    commands_sent: int = 0
    commands_limited: int = 0
    deadline_misses: int = 0
    latency_p50_s: float = 0.0
    latency_p99_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return asdict(self)


class TaskClient:
    """An action client for callers that wait while another thread spins the node."""

    def __init__(self, node: Node, *, action_name: str = ACTION_NAME) -> None:
        self._client = ActionClient(node, ExecuteTask, action_name)
        self._name = action_name

    def destroy(self) -> None:
        """Leave the graph."""
        self._client.destroy()

    def is_ready(self) -> bool:
        """Whether somebody serves the action."""
        return bool(self._client.server_is_ready())

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
        heard = _Heard()

        def feedback(message: Any) -> None:
            heard.now()
            if on_progress is not None:
                on_progress(_progress(message.feedback))

        goal = ExecuteTask.Goal(task=task, timeout_s=float(timeout_s))
        sent = self._client.send_goal_async(goal, feedback_callback=feedback)
        try:
            handle, interrupted = self._answer(sent, timeout_s=server_timeout_s, watch=watch), False
        # The goal is on its way and must not run on without us: its answer is needed to cancel it.
        except KeyboardInterrupt:
            handle, interrupted = self._answer(sent, timeout_s=server_timeout_s, watch=watch), True
        if not handle.accepted:
            return _rejected(task)
        heard.now()
        if not interrupted:
            try:
                return _report(task, self._result(handle, heard=heard, watch=watch))
            except KeyboardInterrupt:
                heard.now()
        handle.cancel_goal_async()
        return _report(task, self._result(handle, heard=heard, watch=watch))

    def _answer(self, future: Any, *, timeout_s: float, watch: Callable[[], None] | None) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        begin = time.monotonic()
        # Short waits, so that Ctrl-C is served and a server that died is noticed.
        while not done.wait(_POLL_S):
            if watch is not None:
                watch()
            if time.monotonic() - begin > timeout_s:
                raise self._lost("does not answer")
        return future.result()

    def _result(self, handle: Any, *, heard: _Heard, watch: Callable[[], None] | None) -> Any:
        answers: list[Any] = []
        done = threading.Event()

        def take(future: Any) -> None:
            answers.append(future.result())
            done.set()

        handle.get_result_async().add_done_callback(take)
        asked = time.monotonic()
        while not done.wait(_POLL_S):
            if watch is not None:
                watch()
            silent_s = heard.ago_s()
            if silent_s > _LOST_S and not self._client.server_is_ready():
                raise self._lost("is gone")
            if silent_s > _SILENT_S:
                raise self._lost(f"has said nothing for {_SILENT_S:g} s")
            # A server that was started anew has the same name, and knows nothing of the goal.
            if min(silent_s, time.monotonic() - asked) > _ASK_AGAIN_S:
                handle.get_result_async().add_done_callback(take)
                asked = time.monotonic()
        if answers[0].status == GoalStatus.STATUS_UNKNOWN:
            raise ServerRestartedError(
                f"the policy server was restarted while the goal ran ('{self._name}'); "
                "the goal is lost, the robot holds",
                mend="look at the server's log, then send the goal again",
            )
        return answers[0]

    def _lost(self, what: str) -> NoServerError:
        return NoServerError(
            f"the policy server {what} ('{self._name}')",
            mend="look at its log; start it again with `fastvla bringup`",
        )


class _Heard:
    """When the server was last heard of."""

    def __init__(self) -> None:
        self.now()

    def now(self) -> None:
        self._at = time.monotonic()

    def ago_s(self) -> float:
        return time.monotonic() - self._at


def _rejected(task: str) -> GoalReport:
    return GoalReport(
        task=task,
        status="REJECTED",
        error="REJECTED",
        message="the server rejected the goal: it is busy, stopped or inactive, or a value of the "
        "goal is wrong (its log and /diagnostics say which)",
        outcome="unknown",
    )


def _progress(feedback: Any) -> Progress:
    return Progress(
        state=_STATES[feedback.state] if feedback.state < len(_STATES) else "UNKNOWN",
        elapsed_s=float(feedback.elapsed_s),
        chunk_index=int(feedback.chunk_index),
        queue_depth=int(feedback.queue_depth),
        inference_s=float(feedback.inference_s),
        oldest_age_s=float(feedback.oldest_observation_age_s),
        blocking_stream=str(feedback.blocking_stream),
    )


def _report(task: str, answer: Any) -> GoalReport:
    result = answer.result
    names = {getattr(ExecuteTask.Result, name): name for name in _ERRORS}
    return GoalReport(
        task=task,
        status=_STATUSES.get(answer.status, "UNKNOWN"),
        error=names.get(result.error_code, "UNKNOWN"),
        message=str(result.error_msg),
        outcome=_OUTCOMES.get(result.outcome, "unknown"),
        elapsed_s=float(result.elapsed_s),
        inferences=int(result.inferences),
        commands_sent=int(result.commands_sent),
        commands_limited=int(result.commands_limited),
        deadline_misses=int(result.deadline_misses),
        latency_p50_s=float(result.latency_p50_s),
        latency_p99_s=float(result.latency_p99_s),
    )
