"""Action servers."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from action_msgs.msg import GoalInfo, GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal

from fastvla_ros.embedded.rcl._rclpy_pybind11 import InvalidHandle, RCLError
from fastvla_ros.embedded.rcl.action import names
from fastvla_ros.embedded.rcl.action.cancelling import goals_to_cancel
from fastvla_ros.embedded.rcl.action.expiry import GoalExpiry
from fastvla_ros.embedded.rcl.action.goal_states import GoalEvent
from fastvla_ros.embedded.rcl.action.policies import (
    CancelResponse,
    GoalResponse,
    default_cancel_callback,
    default_goal_callback,
    default_handle_accepted_callback,
)
from fastvla_ros.embedded.rcl.action.server_goal import ServerGoalHandle
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.qos import (
    QoSProfile,
    qos_profile_action_status_default,
    qos_profile_services_default,
)
from fastvla_ros.embedded.rcl.service import RequestHeader, RequestServer
from fastvla_ros.embedded.rcl.task import Future

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class ActionServer:
    """Accepts goals, runs the execute callback as a task of the executor, keeps results."""

    def __init__(
        self,
        node: Node,
        action_type: Any,
        action_name: str,
        execute_callback: Callable[[ServerGoalHandle], Any],
        *,
        callback_group: CallbackGroup | None = None,
        goal_callback: Callable[[Any], GoalResponse] = default_goal_callback,
        handle_accepted_callback: Callable[
            [ServerGoalHandle], Any
        ] = default_handle_accepted_callback,
        cancel_callback: Callable[[Any], CancelResponse] = default_cancel_callback,
        goal_service_qos_profile: QoSProfile = qos_profile_services_default,
        result_service_qos_profile: QoSProfile = qos_profile_services_default,
        cancel_service_qos_profile: QoSProfile = qos_profile_services_default,
        feedback_pub_qos_profile: QoSProfile | None = None,
        status_pub_qos_profile: QoSProfile = qos_profile_action_status_default,
        result_timeout: float = 900,
    ) -> None:
        """Offer an action.

        Args:
            result_timeout: How long the result of an ended goal is kept [s]; negative is for ever.
        """
        self._node = node
        self._action_type = action_type
        self._lock = threading.RLock()
        self._goals: dict[bytes, ServerGoalHandle] = {}
        self._results: dict[bytes, Future[Any]] = {}
        self._logger = node.get_logger().get_child("action_server")
        self.register_execute_callback(execute_callback)
        self.register_goal_callback(goal_callback)
        self.register_handle_accepted_callback(handle_accepted_callback)
        self.register_cancel_callback(cancel_callback)
        # Jazzy remaps the parts of an action, not the action.
        action = node.resolve_topic_name(action_name, only_expand=True)
        group = node.default_callback_group if callback_group is None else callback_group
        self._expiry = GoalExpiry(
            node, self._forget, timeout_s=result_timeout, callback_group=group
        )
        self._feedback = node.create_publisher(
            action_type.Impl.FeedbackMessage,
            names.feedback_topic(action),
            feedback_pub_qos_profile or QoSProfile(depth=10),
        )
        self._status = node.create_publisher(
            GoalStatusArray, names.status_topic(action), status_pub_qos_profile
        )
        profiles = (
            goal_service_qos_profile,
            cancel_service_qos_profile,
            result_service_qos_profile,
        )
        self._servers = self._open_servers(action, profiles, group)
        self._goal_server, self._cancel_server, self._result_server = self._servers
        self._publish_status()

    @property
    def action_type(self) -> Any:
        """The action's class."""
        return self._action_type

    def register_goal_callback(self, goal_callback: Callable[[Any], Any] | None) -> None:
        """Replace the callback that accepts or rejects; None accepts every goal."""
        self._goal_callback = goal_callback or default_goal_callback

    def register_handle_accepted_callback(
        self, handle_accepted_callback: Callable[[ServerGoalHandle], Any] | None
    ) -> None:
        """Replace the callback that starts (or queues) an accepted goal; None starts it."""
        self._handle_accepted_callback = (
            handle_accepted_callback or default_handle_accepted_callback
        )

    def register_cancel_callback(self, cancel_callback: Callable[[Any], Any] | None) -> None:
        """Replace the callback that lets a goal be cancelled or not; None cancels nothing."""
        self._cancel_callback = cancel_callback or default_cancel_callback

    def register_execute_callback(
        self, execute_callback: Callable[[ServerGoalHandle], Any]
    ) -> None:
        """Replace the callback that does the work and returns the result."""
        if not callable(execute_callback):
            raise TypeError("Failed to register goal execution callback: not callable")
        self._execute_callback = execute_callback

    def notify_execute(
        self, goal_handle: ServerGoalHandle, execute_callback: Callable[..., Any] | None
    ) -> None:
        """Run the execute callback in the executor, outside the callback groups.

        Raises:
            RuntimeError: the node has no executor.
        """
        callback = self._execute_callback if execute_callback is None else execute_callback
        executor = self._node.executor
        if executor is None:
            raise RuntimeError("a goal can only be executed while an executor has the node")
        executor.create_task(self._execute, goal_handle, callback)

    def destroy(self) -> None:
        """Leave the graph; goals that still run are ignored."""
        with self._lock:
            for handle in self._goals.values():
                handle.destroy()
        self._expiry.destroy()
        for server in self._servers:
            self._node.destroy_entity(server)
        self._node.destroy_publisher(self._feedback)
        self._node.destroy_publisher(self._status)

    def _open_servers(
        self, action: str, profiles: Sequence[QoSProfile], group: CallbackGroup
    ) -> list[RequestServer]:
        """The servers of goals, of cancelling and of results."""
        implementation = self._action_type.Impl
        parts = (
            (implementation.SendGoalService, names.send_goal_service(action), self._on_goal),
            (CancelGoal, names.cancel_goal_service(action), self._on_cancel),
            (implementation.GetResultService, names.get_result_service(action), self._on_result),
        )
        return [
            self._node.add_entity(
                RequestServer(self._node, kind, name, handle, qos, callback_group=group)
            )
            for (kind, name, handle), qos in zip(parts, profiles, strict=True)
        ]

    async def _on_goal(self, request: Any, header: RequestHeader) -> None:
        response = self._action_type.Impl.SendGoalService.Response()
        goal_id = bytes(request.goal_id.uuid)
        handle: ServerGoalHandle | None = None
        if goal_id not in self._goals:
            answer = await _awaited(self._goal_callback(request.goal))
            if not isinstance(answer, GoalResponse):
                self._logger.warning(
                    "Goal request callback did not return a GoalResponse type. Rejecting goal."
                )
            elif answer is GoalResponse.ACCEPT:
                stamp = self._node.get_clock().now().to_msg()
                info = GoalInfo(goal_id=request.goal_id, stamp=stamp)
                handle = ServerGoalHandle(self, info, request.goal)
                with self._lock:
                    self._goals[goal_id] = handle
                    self._results[goal_id] = Future()
                response.accepted, response.stamp = True, stamp
        self._answer(self._goal_server, response, header)
        if handle is not None:
            self._publish_status()
            await _awaited(self._handle_accepted_callback(handle))

    async def _on_cancel(self, request: Any, header: RequestHeader) -> None:
        with self._lock:
            response, handles = goals_to_cancel(request.goal_info, dict(self._goals))
        for handle in handles:
            answer = await _awaited(self._cancel_callback(handle))
            # The goal may have ended while the callback was thinking.
            if answer is CancelResponse.ACCEPT and self._try_cancel(handle):
                response.goals_canceling.append(handle.goal_info)
        if handles and not response.goals_canceling:
            response.return_code = CancelGoal.Response.ERROR_REJECTED
        self._answer(self._cancel_server, response, header)

    def _try_cancel(self, handle: ServerGoalHandle) -> bool:
        with handle._lock:
            if not handle.is_active:
                return False
            if not handle.is_cancel_requested:
                handle._update(GoalEvent.CANCEL_GOAL)
            return True

    def _on_result(self, request: Any, header: RequestHeader) -> None:
        future = self._results.get(bytes(request.goal_id.uuid))
        if future is None:
            response = self._action_type.Impl.GetResultService.Response()
            response.status = GoalStatus.STATUS_UNKNOWN
            self._answer(self._result_server, response, header)
            return
        future.add_done_callback(
            lambda done: self._answer(self._result_server, done.result(), header)
        )

    def _answer(self, server: RequestServer, response: Any, header: RequestHeader) -> None:
        try:
            server.send_response(response, header)
        except (RCLError, InvalidHandle) as error:
            # A goal may outlive its server or the context; then nobody waits for the answer.
            self._logger.warning(f"Failed to send a response on '{server.srv_name}': {error}")

    async def _execute(self, handle: ServerGoalHandle, callback: Callable[..., Any]) -> None:
        try:
            result = await _awaited(callback(handle))
        except Exception as error:
            result = self._action_type.Result()
            self._logger.error(f"Error raised in execute callback: {error}")
            traceback.print_exc()
        if handle.is_active:
            self._logger.warning(
                f"Goal state not set, assuming aborted. Goal ID: {bytes(handle.goal_id.uuid).hex()}"
            )
            handle.abort()
        response = self._action_type.Impl.GetResultService.Response()
        response.status = handle.status
        response.result = self._action_type.Result() if result is None else result
        future = self._results.get(bytes(handle.goal_id.uuid))
        # A callback that goes on after it has ended its goal may find it forgotten.
        if future is not None:
            future.set_result(response)

    def _goal_changed(self, handle: ServerGoalHandle) -> None:
        if not handle.is_active:
            self._expiry.goal_ended(bytes(handle.goal_id.uuid))
        self._publish_status()

    def _publish_status(self) -> None:
        with self._lock:
            statuses = [
                GoalStatus(goal_info=handle.goal_info, status=handle.status)
                for handle in self._goals.values()
            ]
            self._status.publish(GoalStatusArray(status_list=statuses))

    def _publish_feedback(self, goal_id: Any, feedback: Any) -> None:
        message = self._action_type.Impl.FeedbackMessage(goal_id=goal_id, feedback=feedback)
        self._feedback.publish(message)

    def _forget(self, goal_id: bytes) -> None:
        with self._lock:
            self._goals.pop(goal_id).destroy()
            del self._results[goal_id]


async def _awaited(result: Any) -> Any:
    """The result of a callback that may be a coroutine function."""
    return await result if isawaitable(result) else result
