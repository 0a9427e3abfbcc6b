"""Callbacks for changes of parameters, of one's own node or of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import Parameter, ParameterEvent

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.event_handler import SubscriptionEventCallbacks
from fastvla_ros.embedded.rcl.names import full_node_name
from fastvla_ros.embedded.rcl.qos import QoSProfile, qos_profile_parameter_events

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


@dataclass(frozen=True, eq=False)
class ParameterCallbackHandle:
    """A callback for one parameter of one node; removes it."""

    parameter_name: str
    node_name: str
    callback: Callable[[Parameter], Any]


@dataclass(frozen=True, eq=False)
class ParameterEventCallbackHandle:
    """A callback for every event; removes it."""

    callback: Callable[[ParameterEvent], Any]


class ParameterEventHandler:
    """Listens to /parameter_events; the callback that was added last is called first."""

    def __init__(
        self,
        node: Node,
        qos_profile: QoSProfile = qos_profile_parameter_events,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
    ) -> None:
        self.node = node
        self.qos_profile = qos_profile
        self._lock = threading.Lock()
        self._parameters: list[ParameterCallbackHandle] = []
        self._events: list[ParameterEventCallbackHandle] = []
        self.parameter_event_subscription = node.create_subscription(
            ParameterEvent,
            "/parameter_events",
            self._on_event,
            qos_profile,
            callback_group=callback_group,
            event_callbacks=event_callbacks,
        )

    def destroy(self) -> None:
        """Stop to listen."""
        self.node.destroy_subscription(self.parameter_event_subscription)

    @staticmethod
    def get_parameter_from_event(
        event: ParameterEvent, parameter_name: str, node_name: str
    ) -> Parameter | None:
        """The parameter of that node as the event says it is now, or None."""
        if event.node == node_name:
            for parameter in ParameterEventHandler.get_parameters_from_event(event):
                if parameter.name == parameter_name:
                    return parameter
        return None

    @staticmethod
    def get_parameters_from_event(event: ParameterEvent) -> Iterator[Parameter]:
        """Every new or changed parameter of an event."""
        yield from chain(event.new_parameters, event.changed_parameters)

    def add_parameter_callback(
        self, parameter_name: str, node_name: str, callback: Callable[[Parameter], Any]
    ) -> ParameterCallbackHandle:
        """Be told of one parameter.

        Args:
            node_name: Relative to the node's namespace; "" is the node itself.
        """
        handle = ParameterCallbackHandle(parameter_name, self._full_name(node_name), callback)
        with self._lock:
            self._parameters.insert(0, handle)
        return handle

    def remove_parameter_callback(self, handle: ParameterCallbackHandle) -> None:
        """Undo `add_parameter_callback`; RuntimeError when it was not added."""
        self._remove(self._parameters, handle)

    def add_parameter_event_callback(
        self, callback: Callable[[ParameterEvent], Any]
    ) -> ParameterEventCallbackHandle:
        """Be told of every event of every node."""
        handle = ParameterEventCallbackHandle(callback)
        with self._lock:
            self._events.insert(0, handle)
        return handle

    def remove_parameter_event_callback(self, handle: ParameterEventCallbackHandle) -> None:
        """Undo `add_parameter_event_callback`; RuntimeError when it was not added."""
        self._remove(self._events, handle)

    def _remove(self, handles: list[Any], handle: object) -> None:
        with self._lock:
            if handle not in handles:
                raise RuntimeError("Callback doesn't exist")
            handles.remove(handle)

    def _on_event(self, event: ParameterEvent) -> None:
        with self._lock:
            parameters, events = list(self._parameters), list(self._events)
        for handle in parameters:
            found = self.get_parameter_from_event(event, handle.parameter_name, handle.node_name)
            if found is not None:
                handle.callback(found)
        for any_event in events:
            any_event.callback(event)

    def _full_name(self, node_name: str) -> str:
        if not node_name:
            return self.node.get_fully_qualified_name()
        if node_name.startswith("/"):
            return node_name
        return full_node_name(self.node.get_namespace(), node_name)
