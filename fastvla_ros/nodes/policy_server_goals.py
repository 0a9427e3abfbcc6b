"""The policy server's goals: the action, the stop, the verdicts, the guard, the control tick."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.engine import InferenceWorker
from fastvla_msgs.action import ExecuteTask
from fastvla_ros.bridge.joints import stamp_ns
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.commands import joint_trajectory
from fastvla_ros.diagnostics.goals import GoalTotals, PathHistory
from fastvla_ros.nodes import policy_server_messages as messages
from fastvla_ros.nodes.goal_desk import GoalDesk, GoalNotStartedError
from fastvla_ros.nodes.goal_session import GoalSession
from fastvla_ros.nodes.goal_types import GoalCode, GoalEnd, Instant, Outcome, Tick
from fastvla_ros.nodes.policy_server_diagnostics import ServerState
from fastvla_ros.nodes.policy_server_links import ServerLinks
from fastvla_ros.nodes.policy_server_parameters import ServerParameters
from fastvla_ros.nodes.policy_server_safety import SafetyWatch

# Ending takes milliseconds; this bounds it on a machine that is overloaded.
_RESULT_TIMEOUT_S = 5.0
# For whoever asks late. rclpy keeps each goal for a quarter of an hour, and lists all of them with
# every change of one.
_RESULT_KEPT_S = 30
_SEND_S = 0.05
_CANCEL_HANDOVER_S = 5.0
# A judge's clock may lag: the simulator stamps its verdict with the last simulated instant.
_VERDICT_LAG_NS = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a configured server works with."""

    parameters: ServerParameters
    contract: RobotContract
    bridge: StreamBridge
    worker: InferenceWorker
    links: ServerLinks


class ServerGoals:
    """Serves `~/execute_task`, `~/stop` and `~/reset_stop`; rejects while nothing is served.

    Attributes:
        latencies: Each chunk's way from image arrival to command, newest last.
        totals: What all goals came to.
        last_rejection: Why the last goal was rejected; a goal's client is not told.
    """

    def __init__(self, node: Node) -> None:
        self.latencies, self.totals = PathHistory(), GoalTotals()
        self.last_rejection = ""
        self._node = node
        self._safety = SafetyWatch()
        self._desk = GoalDesk(self)
        self._serving: Serving | None = None
        self._accepting = False
        self._executing: set[int] = set()
        self._action: ActionServer | None = None

    def serve(self) -> None:
        """Join the graph; the node must be spun soon, or a goal waits and starts unexpectedly."""
        group, node = ReentrantCallbackGroup(), self._node
        self._action = ActionServer(
            node,
            ExecuteTask,
            "~/execute_task",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._desk.accepted,
            cancel_callback=self._on_cancel,
            callback_group=group,
            result_timeout=_RESULT_KEPT_S,
        )
        node.create_service(Trigger, "~/stop", self._on_stop, callback_group=group)
        node.create_service(Trigger, "~/reset_stop", self._on_reset_stop, callback_group=group)

    @property
    def running(self) -> bool:
        """Whether a goal is active."""
        return self._desk.session is not None

    @property
    def accepting(self) -> bool:
        """Whether the server is active."""
        return self._accepting

    def activate(self, serving: Serving) -> None:
        """Accept goals from now on."""
        self._serving, self._accepting = serving, True

    def deactivate(self, why: str) -> None:
        """Hold, end every goal with DEACTIVATED, and reject goals from now on."""
        self._accepting = False
        if self._desk.busy:
            self._desk.end_all(GoalCode.DEACTIVATED, why, timeout_s=_RESULT_TIMEOUT_S)
            self._let_results_go()

    def _let_results_go(self) -> None:
        # The executor takes a result when `_execute` has returned, and sends it in a task of its
        # own; nothing tells when that is done, but a task that is made later runs later.
        deadline = time.monotonic() + _RESULT_TIMEOUT_S
        while self._executing and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(_SEND_S)
        executor = self._node.executor
        for _ in range(2):
            passed = threading.Event()
            if executor is not None:
                executor.create_task(passed.set)
                passed.wait(_RESULT_TIMEOUT_S)

    def destroy(self) -> None:
        """Take the action off the graph."""
        if self._action is not None:
            self._action.destroy()

    def state(self) -> ServerState:
        """What diagnostics tell."""
        session = self._desk.session
        return ServerState(
            task=session.task if session is not None else "",
            stop=self._safety.reason,
            rejection=self.last_rejection,
            totals=self.totals,
            paths=self.latencies,
        )

    def tick(self) -> None:
        """One control tick."""
        session = self._desk.session
        if session is not None and self._safety.guard_lost:
            session.request_end(GoalCode.CONTROLLER_LOST, "the command guard is gone")
        self._desk.tick()

    # -- goals ---------------------------------------------------------------------------------

    def _on_goal(self, request: Any) -> GoalResponse:
        serving = self._serving
        if serving is None or not self._accepting:
            return self._reject("the server is not active")
        if why := self._safety.reason:
            return self._reject(f"the emergency stop holds: {why}; call ~/reset_stop")
        if why := messages.refusal(request, parameters=serving.parameters):
            return self._reject(why)
        if not self._desk.reserve(on_busy=serving.parameters.on_busy):
            return self._reject("another goal runs (parameter on_busy: reject)")
        return GoalResponse.ACCEPT

    def _reject(self, why: str) -> GoalResponse:
        self.last_rejection = why
        self._node.get_logger().warning(f"goal rejected: {why}")
        return GoalResponse.REJECT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        return CancelResponse.ACCEPT if self._desk.cancel(handle) else CancelResponse.REJECT

    def _execute(self, handle: Any) -> Any:
        self._executing.add(threading.get_ident())
        try:
            return messages.to_result(self._desk.execute(handle))
        finally:
            self._executing.discard(threading.get_ident())

    # -- DeskListener --------------------------------------------------------------------------

    def now(self) -> Instant:
        """Both clocks."""
        ros_ns = self._node.get_clock().now().nanoseconds
        return Instant(ros_ns=ros_ns, steady_ns=time.monotonic_ns())

    def start(self, request: Any) -> GoalSession:
        """A session for an accepted request.

        Raises:
            GoalNotStartedError: the server was stopped or deactivated since it was accepted.
        """
        serving = self._serving
        if why := self._safety.reason:
            raise GoalNotStartedError(GoalCode.SAFETY_STOP, why)
        if serving is None or not self._accepting:
            raise GoalNotStartedError(
                GoalCode.DEACTIVATED, "the server was deactivated before the goal began"
            )
        task = request.task.strip()
        if not request.dry_run and serving.links.command.get_subscription_count() == 0:
            self._node.get_logger().warning(
                f"nobody listens to '{serving.contract.outputs.command}': the robot will not "
                "move; start the command_guard"
            )
        self._safety.start_counting()
        serving.links.current_task.publish(String(data=task))
        return GoalSession(
            task,
            contract=serving.contract,
            bridge=serving.bridge,
            worker=serving.worker,
            options=messages.to_options(request, parameters=serving.parameters),
            now=self.now(),
            seed=serving.parameters.seed,
            path=self.latencies,
        )

    def publish(self, session: GoalSession, tick: Tick, goal_handle: Any) -> None:
        """Send what a tick asks for."""
        serving = self._serving
        assert serving is not None
        frame_id = serving.contract.frame_id
        if tick.command is not None:
            serving.links.command.publish(
                joint_trajectory.to_message(tick.command, frame_id=frame_id)
            )
            session.on_published(steady_ns=time.monotonic_ns())
        if tick.chunk is not None:
            serving.links.preview.publish(messages.to_preview(tick.chunk, frame_id=frame_id))
        if tick.feedback is not None:
            goal_handle.publish_feedback(messages.to_feedback(tick.feedback))
        if tick.end is not None:
            serving.links.current_task.publish(String(data=""))

    def finish(self, goal_handle: Any, end: GoalEnd) -> None:
        """Bring the action's goal to its final state, and log it."""
        self.totals.add(end)
        if end.code is GoalCode.CANCELED and _wait_canceling(goal_handle):
            goal_handle.canceled()
        elif end.code is GoalCode.NONE and end.outcome is not Outcome.FAILURE:
            goal_handle.succeed()
        else:
            goal_handle.abort()
        self._node.get_logger().info(
            f"{goal_handle.request.task!r} ended: {end.code.name}, outcome {end.outcome.name}, "
            f"{end.elapsed_s:.1f} s{f' ({end.message})' if end.message else ''}"
        )

    def on_error(self, error: Exception) -> None:
        """Log a defect that ended a goal."""
        self._node.get_logger().error(f"a defect ended the goal: {type(error).__name__}: {error}")

    # -- what comes in -------------------------------------------------------------------------

    def on_data(self) -> None:
        """A sensor message came in."""
        session = self._desk.session
        if session is not None:
            session.on_data(self.now())

    def on_outcome(self, message: Any) -> None:
        """Somebody judged a task."""
        session = self._desk.session
        if session is None or message.task != session.task:
            return
        if message.outcome not in (Outcome.SUCCESS, Outcome.FAILURE):
            return
        judged_ns = stamp_ns(message.header.stamp)
        if not judged_ns or judged_ns >= session.started.ros_ns - _VERDICT_LAG_NS:
            session.request_end(GoalCode.NONE, message.detail, outcome=Outcome(message.outcome))

    def on_guard(self, message: Any) -> None:
        """The guard told its status."""
        self._safety.on_guard(message)
        session = self._desk.session
        if session is None:
            return
        session.on_limited(self._safety.limited)
        if message.latched:
            session.request_end(GoalCode.SAFETY_STOP, f"the guard stopped: {message.reason}")

    def _on_stop(self, _request: Any, response: Any) -> Any:
        self._safety.stop("~/stop was called")
        self._desk.end_all(GoalCode.SAFETY_STOP, self._safety.reason, timeout_s=_RESULT_TIMEOUT_S)
        response.success, response.message = True, "stopped; call ~/reset_stop to go on"
        return response

    def _on_reset_stop(self, _request: Any, response: Any) -> Any:
        if self._desk.busy:
            response.success, response.message = False, "a goal is still active; end it first"
        else:
            self._safety.release()
            response.success, response.message = True, "the stop is released"
        return response


def _wait_canceling(handle: Any) -> bool:
    # The server enters CANCELING only after the callback that accepted the cancel has returned.
    deadline = time.monotonic() + _CANCEL_HANDOVER_S
    while not handle.is_cancel_requested and time.monotonic() < deadline:
        time.sleep(0.002)
    return handle.is_cancel_requested
