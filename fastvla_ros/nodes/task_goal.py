"""One goal on its way to the policy server, for callers that look now and then and never wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from fastvla_core.errors import RosError
from fastvla_msgs.action import ExecuteTask

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


class TaskGoal:
    """One goal, from sending it to its report; made by `TaskClient.send`.

    Another thread spins the node. No method waits, except `wait`.

    Args:
        answer_timeout_s: How long the server may take to accept or reject.
        on_progress: Called with each feedback, by the thread that spins.

    Attributes:
        task: The instruction.
        progress: The latest feedback, or None.
    """

    def __init__(
        self,
        client: ActionClient,
        goal: Any,
        *,
        name: str,
        answer_timeout_s: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.task: str = goal.task
        self.progress: Progress | None = None
        self._client, self._name, self._on_progress = client, name, on_progress
        self._answer_timeout_s = answer_timeout_s
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._handle: Any = None
        self._answer: Any = None
        self._cancel = False
        self._sent_at = self._heard_at = self._asked_at = time.monotonic()
        sent = client.send_goal_async(goal, feedback_callback=self._take_feedback)
        sent.add_done_callback(self._take_handle)

    @property
    def id(self) -> str:
        """The goal's id in hexadecimal digits; "" until it is accepted."""
        with self._lock:
            handle = self._handle
        return bytes(handle.goal_id.uuid).hex() if handle is not None else ""

    def poll(self) -> GoalReport | None:
        """How the goal ended; None while it has not.

        Raises:
            NoServerError: the server does not answer, is gone, or has forgotten the goal.
        """
        with self._lock:
            handle, answer = self._handle, self._answer
        if handle is None:
            if time.monotonic() - self._sent_at > self._answer_timeout_s:
                raise self._lost("does not answer")
            return None
        if not handle.accepted:
            return _rejected(self.task)
        if answer is None:
            self._watch_server(handle)
            return None
        if answer.status == GoalStatus.STATUS_UNKNOWN:
            raise ServerRestartedError(
                f"the policy server was restarted while the goal ran ('{self._name}'); "
                "the goal is lost, the robot holds",
                mend="look at the server's log, then send the goal again",
            )
        return _report(self.task, answer)

    def cancel(self) -> None:
        """Ask for the end of the goal; where it is not accepted yet, as soon as it is."""
        self._heard_at = time.monotonic()
        self._ask_for_end()

    def wait(self, timeout_s: float) -> None:
        """Wait until `poll` may have something new to say."""
        if self._changed.wait(timeout_s):
            self._changed.clear()

    def _watch_server(self, handle: Any) -> None:
        now = time.monotonic()
        silent_s = now - self._heard_at
        if silent_s > _LOST_S and not self._client.server_is_ready():
            raise self._lost("is gone")
        if silent_s > _SILENT_S:
            raise self._lost(f"has said nothing for {_SILENT_S:g} s")
        # A server that was started anew has the same name, and knows nothing of the goal.
        if min(silent_s, now - self._asked_at) > _ASK_AGAIN_S:
            self._ask_for_result(handle)

    def _ask_for_end(self) -> None:
        with self._lock:
            handle, self._cancel = self._handle, True
        if handle is not None and handle.accepted:
            handle.cancel_goal_async()

    def _ask_for_result(self, handle: Any) -> None:
        self._asked_at = time.monotonic()
        handle.get_result_async().add_done_callback(self._take_answer)

    def _take_handle(self, future: Any) -> None:
        handle = future.result()
        with self._lock:
            self._handle, cancel = handle, self._cancel
            self._heard_at = time.monotonic()
        if handle.accepted:
            if cancel:
                handle.cancel_goal_async()
            self._ask_for_result(handle)
        self._changed.set()

    def _take_answer(self, future: Any) -> None:
        with self._lock:
            self._answer = self._answer or future.result()
        self._changed.set()

    def _take_feedback(self, message: Any) -> None:
        self._heard_at = time.monotonic()
        self.progress = _progress(message.feedback)
        if self._on_progress is not None:
            self._on_progress(self.progress)

    def _lost(self, what: str) -> NoServerError:
        # A server that answers after all must not move the robot for somebody who has left.
        if not self._cancel:
            self._ask_for_end()
        return NoServerError(
            f"the policy server {what} ('{self._name}')",
            mend="look at its log; start it again with `fastvla bringup`",
        )


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
