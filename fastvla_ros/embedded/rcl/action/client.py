"""Action clients."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from action_msgs.msg import GoalInfo, GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal
from unique_identifier_msgs.msg import UUID

from fastvla_ros.embedded.rcl.action import names
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.qos import (
    QoSProfile,
    qos_profile_action_status_default,
    qos_profile_services_default,
)
from fastvla_ros.embedded.rcl.task import Future, Wakeup

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


KEPT_FEEDBACK_CALLBACKS = 100


class ClientGoalHandle:
    """A goal that was sent; `accepted` says what the server answered."""

    def __init__(self, action_client: ActionClient, goal_id: UUID, goal_response: Any) -> None:
        self._client = action_client
        self._goal_id = goal_id
        self._response = goal_response
        self._status: int = GoalStatus.STATUS_UNKNOWN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientGoalHandle):
            return NotImplemented
        return bool(self._goal_id == other._goal_id)

    def __hash__(self) -> int:
        return hash(bytes(self._goal_id.uuid))

    def __repr__(self) -> str:
        goal_id = bytes(self._goal_id.uuid).hex()
        return f"ClientGoalHandle <id={goal_id}, accepted={self.accepted}, status={self.status}>"

    @property
    def goal_id(self) -> UUID:
        """The UUID message of the goal."""
        return self._goal_id

    @property
    def stamp(self) -> Any:
        """When the server accepted it."""
        return self._response.stamp

    @property
    def accepted(self) -> bool:
        """Whether the server accepted it."""
        return self._response.accepted

    @property
    def status(self) -> int:
        """The latest status that was received, a GoalStatus constant."""
        return self._status

    def cancel_goal_async(self) -> Future[Any]:
        """Ask to cancel; the future ends with CancelGoal.Response."""
        return self._client._cancel_goal_async(self)

    def cancel_goal(self) -> Any:
        """Ask to cancel and wait; another thread must spin."""
        return wait_for(self.cancel_goal_async())

    def get_result_async(self) -> Future[Any]:
        """The future ends with the goal: `status` and `result`."""
        return self._client._get_result_async(self)

    def get_result(self) -> Any:
        """Wait for the end of the goal; another thread must spin."""
        return wait_for(self.get_result_async())


class ActionClient:
    """Sends goals to an action server."""

    def __init__(
        self,
        node: Node,
        action_type: Any,
        action_name: str,
        *,
        callback_group: CallbackGroup | None = None,
        goal_service_qos_profile: QoSProfile = qos_profile_services_default,
        result_service_qos_profile: QoSProfile = qos_profile_services_default,
        cancel_service_qos_profile: QoSProfile = qos_profile_services_default,
        feedback_sub_qos_profile: QoSProfile | None = None,
        status_sub_qos_profile: QoSProfile = qos_profile_action_status_default,
    ) -> None:
        self._node = node
        self._action_type = action_type
        self._lock = threading.Lock()
        self._handles: dict[bytes, weakref.ref[ClientGoalHandle]] = {}
        self._feedback_callbacks: dict[bytes, Callable[[Any], Any]] = {}
        # Jazzy remaps the parts of an action, not the action.
        action = node.resolve_topic_name(action_name, only_expand=True)
        implementation = action_type.Impl
        self._clients = [
            node.create_client(kind, name, qos_profile=qos, callback_group=callback_group)
            for kind, name, qos in (
                (
                    implementation.SendGoalService,
                    names.send_goal_service(action),
                    goal_service_qos_profile,
                ),
                (CancelGoal, names.cancel_goal_service(action), cancel_service_qos_profile),
                (
                    implementation.GetResultService,
                    names.get_result_service(action),
                    result_service_qos_profile,
                ),
            )
        ]
        self._goal_client, self._cancel_client, self._result_client = self._clients
        feedback_qos = feedback_sub_qos_profile or QoSProfile(depth=10)
        self._subscriptions = [
            node.create_subscription(kind, name, callback, qos, callback_group=callback_group)
            for kind, name, callback, qos in (
                (
                    implementation.FeedbackMessage,
                    names.feedback_topic(action),
                    self._on_feedback,
                    feedback_qos,
                ),
                (
                    GoalStatusArray,
                    names.status_topic(action),
                    self._on_status,
                    status_sub_qos_profile,
                ),
            )
        ]

    def send_goal_async(
        self,
        goal: Any,
        feedback_callback: Callable[[Any], Any] | None = None,
        goal_uuid: UUID | None = None,
    ) -> Future[ClientGoalHandle]:
        """Send a goal; the future ends with its handle, accepted or not.

        Args:
            feedback_callback: Gets the action's FeedbackMessage (with `.feedback`).
        Raises:
            TypeError: not the action's Goal.
        """
        if not isinstance(goal, self._action_type.Goal):
            raise TypeError(f"Expected {self._action_type.Goal}, got {type(goal)}")
        goal_id = UUID(uuid=list(uuid.uuid4().bytes)) if goal_uuid is None else goal_uuid
        request = self._action_type.Impl.SendGoalService.Request(goal_id=goal_id, goal=goal)
        key = bytes(goal_id.uuid)
        if feedback_callback is not None:
            self._remember(key, feedback_callback)
        result: Future[ClientGoalHandle] = Future(executor=self._node.executor)

        def answered(done: Future[Any]) -> None:
            handle = ClientGoalHandle(self, goal_id, done.result())
            if handle.accepted:
                with self._lock:
                    self._handles[key] = weakref.ref(handle)
            else:
                self._feedback_callbacks.pop(key, None)
            result.set_result(handle)

        self._goal_client.call_async(request).add_done_callback(answered)
        return result

    def send_goal(self, goal: Any, **kwargs: Any) -> Any:
        """Send a goal and wait for its end; another thread must spin.

        Returns:
            The GetResultService response, or None when the goal was rejected.
        """
        handle = wait_for(self.send_goal_async(goal, **kwargs))
        return handle.get_result() if handle.accepted else None

    def server_is_ready(self) -> bool:
        """Whether all parts of a server are there."""
        return all(client.service_is_ready() for client in self._clients) and all(
            subscription.get_publisher_count() > 0 for subscription in self._subscriptions
        )

    def wait_for_server(self, timeout_sec: float | None = None) -> bool:
        """Wait for a server; False when the time is over or the context ends."""
        context = self._node.context
        return context.graph.wait_until(self.server_is_ready, timeout_s=timeout_sec, ok=context.ok)

    def destroy(self) -> None:
        """Leave the graph."""
        for client in self._clients:
            self._node.destroy_client(client)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _cancel_goal_async(self, handle: ClientGoalHandle) -> Future[Any]:
        request = CancelGoal.Request(goal_info=GoalInfo(goal_id=handle.goal_id))
        return self._cancel_client.call_async(request)

    def _get_result_async(self, handle: ClientGoalHandle) -> Future[Any]:
        kind = self._action_type.Impl.GetResultService.Request
        future = self._result_client.call_async(kind(goal_id=handle.goal_id))

        def ended(done: Future[Any]) -> None:
            response = done.result()
            if response is not None:
                handle._status = response.status

        future.add_done_callback(ended)
        return future

    def _remember(self, key: bytes, callback: Callable[[Any], Any]) -> None:
        """Keep the callbacks of the latest goals: feedback may come after the result."""
        with self._lock:
            self._feedback_callbacks[key] = callback
            while len(self._feedback_callbacks) > KEPT_FEEDBACK_CALLBACKS:
                del self._feedback_callbacks[next(iter(self._feedback_callbacks))]

    def _on_feedback(self, message: Any) -> Any:
        callback = self._feedback_callbacks.get(bytes(message.goal_id.uuid))
        return None if callback is None else callback(message)

    def _on_status(self, message: Any) -> None:
        for status in message.status_list:
            key = bytes(status.goal_info.goal_id.uuid)
            with self._lock:
                reference = self._handles.get(key)
                handle = None if reference is None else reference()
                if reference is not None and handle is None:
                    del self._handles[key]
            if handle is not None:
                handle._status = status.status


def wait_for(future: Future[Any]) -> Any:
    """Wait until another thread has finished the future."""
    done = threading.Event()
    future.add_done_callback(Wakeup(done.set))
    done.wait()
    return future.result()
