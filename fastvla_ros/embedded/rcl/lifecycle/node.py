"""Lifecycle nodes."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

from lifecycle_msgs import msg, srv

from fastvla_ros.embedded.rcl._rclpy_pybind11 import RCLError
from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.lifecycle.managed_entity import ManagedEntity
from fastvla_ros.embedded.rcl.lifecycle.publisher import LifecyclePublisher
from fastvla_ros.embedded.rcl.lifecycle.transitions import (
    GRAPH,
    STATES,
    LifecycleState,
    TransitionCallbackReturn,
    TransitionRule,
    rules_from,
)
from fastvla_ros.embedded.rcl.node import Node

CALLBACKS = {
    msg.State.TRANSITION_STATE_CONFIGURING: "on_configure",
    msg.State.TRANSITION_STATE_CLEANINGUP: "on_cleanup",
    msg.State.TRANSITION_STATE_SHUTTINGDOWN: "on_shutdown",
    msg.State.TRANSITION_STATE_ACTIVATING: "on_activate",
    msg.State.TRANSITION_STATE_DEACTIVATING: "on_deactivate",
    msg.State.TRANSITION_STATE_ERRORPROCESSING: "on_error",
}


def state_message(state_id: int) -> msg.State:
    """A state as a message."""
    return msg.State(id=state_id, label=STATES[state_id])


def description(rule: TransitionRule) -> msg.TransitionDescription:
    """A transition as a message."""
    return msg.TransitionDescription(
        transition=msg.Transition(id=rule.id, label=rule.label),
        start_state=state_message(rule.start),
        goal_state=state_message(rule.goal),
    )


class LifecycleNodeMixin(ManagedEntity):
    """Adds the state machine, its services and `~/transition_event` to a node."""

    def __init__(
        self: Any,
        *,
        enable_communication_interface: bool = True,
        callback_group: CallbackGroup | None = None,
    ) -> None:
        self._state_id: int = msg.State.PRIMARY_STATE_UNCONFIGURED
        self._transition_lock = threading.RLock()
        self._managed_entities: list[ManagedEntity] = []
        self._transition_event = None
        if not enable_communication_interface:
            return
        self._transition_event = self.create_publisher(
            msg.TransitionEvent, "~/transition_event", 10
        )
        for kind, name, callback in (
            (srv.ChangeState, "change_state", self._on_change_state),
            (srv.GetState, "get_state", self._on_get_state),
            (srv.GetAvailableStates, "get_available_states", self._on_get_states),
            (srv.GetAvailableTransitions, "get_available_transitions", self._on_get_transitions),
            (srv.GetAvailableTransitions, "get_transition_graph", self._on_get_graph),
        ):
            self.create_service(kind, f"~/{name}", callback, callback_group=callback_group)

    @property
    def _current_state(self) -> LifecycleState:
        """Where the node is in its life."""
        return LifecycleState(STATES[self._state_id], self._state_id)

    def trigger_configure(self) -> TransitionCallbackReturn:
        """Unconfigured to inactive; RCLError when impossible now."""
        return self._trigger("configure")

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        """Inactive to unconfigured; RCLError when impossible now."""
        return self._trigger("cleanup")

    def trigger_activate(self) -> TransitionCallbackReturn:
        """Inactive to active; RCLError when impossible now."""
        return self._trigger("activate")

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        """Active to inactive; RCLError when impossible now."""
        return self._trigger("deactivate")

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """To finalized; RCLError when impossible now."""
        return self._trigger("shutdown")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_configure", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_cleanup", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_shutdown", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_deactivate", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tell_entities("on_error", state)

    def add_managed_entity(self, entity: ManagedEntity) -> None:
        """Have an entity told of the transitions by the default callbacks."""
        if not isinstance(entity, ManagedEntity):
            raise TypeError("Expected a rclpy.lifecycle.ManagedEntity instance.")
        self._managed_entities.append(entity)

    def create_lifecycle_publisher(
        self: Any, msg_type: Any, topic: str, qos_profile: Any, **kwargs: Any
    ) -> LifecyclePublisher:
        """A publisher that is silent while the node is inactive."""
        publisher = self.create_publisher(
            msg_type, topic, qos_profile, publisher_class=LifecyclePublisher, **kwargs
        )
        self._managed_entities.append(publisher)
        return publisher

    def destroy_lifecycle_publisher(self: Any, publisher: LifecyclePublisher) -> bool:
        """Destroy such a publisher."""
        if publisher in self._managed_entities:
            self._managed_entities.remove(publisher)
        return self.destroy_publisher(publisher)

    def _tell_entities(self, name: str, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in self._managed_entities:
            result = getattr(entity, name)(state)
            if result is not TransitionCallbackReturn.SUCCESS:
                return result
        return TransitionCallbackReturn.SUCCESS

    def _trigger(self, label: str) -> TransitionCallbackReturn:
        with self._transition_lock:
            for rule in rules_from(self._state_id):
                if rule.label == label:
                    return self._run(rule)
            raise RCLError(f"transition '{label}' is not possible in {STATES[self._state_id]}")

    def _run(self, rule: TransitionRule) -> TransitionCallbackReturn:
        """Go through a transition state and, after an error, through error processing."""
        before = self._current_state
        self._move(rule)
        result = self._call_back(before)
        self._leave(result)
        if result is TransitionCallbackReturn.ERROR:
            self._leave(self._call_back(before))
        return result

    def _leave(self, result: TransitionCallbackReturn) -> None:
        (rule,) = (r for r in rules_from(self._state_id) if r.label == result.value)
        self._move(rule)

    def _move(self: Any, rule: TransitionRule) -> None:
        self._state_id = rule.goal
        if self._transition_event is not None and self.context.ok():
            text = description(rule)
            event = msg.TransitionEvent(timestamp=time.time_ns(), transition=text.transition)
            event.start_state, event.goal_state = text.start_state, text.goal_state
            self._transition_event.publish(event)

    def _call_back(self: Any, before: LifecycleState) -> TransitionCallbackReturn:
        name = CALLBACKS[self._state_id]
        try:
            result = getattr(self, name)(before)
        except Exception as error:
            # rclpy turns an exception into ERROR without a word.
            self.get_logger().error(f"{name} raised {type(error).__name__}: {error}")
            traceback.print_exc()
            return TransitionCallbackReturn.ERROR
        if not isinstance(result, TransitionCallbackReturn):
            self.get_logger().error(f"{name} returned {result!r}, not a TransitionCallbackReturn")
            return TransitionCallbackReturn.ERROR
        return result

    def _on_change_state(self: Any, request: Any, response: Any) -> Any:
        wanted = request.transition
        with self._transition_lock:
            for rule in rules_from(self._state_id):
                if rule.label == wanted.label if wanted.label else rule.id == wanted.id:
                    response.success = self._run(rule) is TransitionCallbackReturn.SUCCESS
                    return response
            self.get_logger().warning(
                f"transition {wanted.id} '{wanted.label}' is not possible in "
                f"{STATES[self._state_id]}"
            )
        response.success = False
        return response

    def _on_get_state(self, request: Any, response: Any) -> Any:
        response.current_state = state_message(self._state_id)
        return response

    def _on_get_states(self, request: Any, response: Any) -> Any:
        response.available_states = [state_message(state_id) for state_id in STATES]
        return response

    def _on_get_transitions(self, request: Any, response: Any) -> Any:
        response.available_transitions = [description(r) for r in rules_from(self._state_id)]
        return response

    def _on_get_graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = [description(rule) for rule in GRAPH]
        return response


class LifecycleNode(LifecycleNodeMixin, Node):
    """A node with a managed life; it starts unconfigured."""

    def __init__(
        self, node_name: str, *, enable_communication_interface: bool = True, **kwargs: Any
    ) -> None:
        Node.__init__(self, node_name, **kwargs)
        LifecycleNodeMixin.__init__(
            self, enable_communication_interface=enable_communication_interface
        )
