"""Reads and sets the parameters of another node through its six services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.client import Client
from fastvla_ros.embedded.rcl.parameter import Parameter, parameter_dict_from_yaml_file
from fastvla_ros.embedded.rcl.qos import (
    QoSProfile,
    qos_profile_parameter_events,
    qos_profile_services_default,
)
from fastvla_ros.embedded.rcl.subscription import Subscription
from fastvla_ros.embedded.rcl.task import Future

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

Parameters = Sequence["Parameter | ParameterMsg"]
Callback = Callable[[Future[Any]], Any]


class AsyncParameterClient:
    """Gives futures of the services' responses; a `callback` gets the future when it is done."""

    def __init__(
        self,
        node: Node,
        remote_node_name: str,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> None:
        self.node = node
        self.remote_node_name = remote_node_name

        def client(kind: Any, name: str) -> Client:
            return node.create_client(
                kind,
                f"{remote_node_name}/{name}",
                qos_profile=qos_profile,
                callback_group=callback_group,
            )

        self._get = client(GetParameters, "get_parameters")
        self._list = client(ListParameters, "list_parameters")
        self._set = client(SetParameters, "set_parameters")
        self._types = client(GetParameterTypes, "get_parameter_types")
        self._describe = client(DescribeParameters, "describe_parameters")
        self._set_atomically = client(SetParametersAtomically, "set_parameters_atomically")
        self._clients = (
            self._get,
            self._list,
            self._set,
            self._types,
            self._describe,
            self._set_atomically,
        )

    def services_are_ready(self) -> bool:
        """Whether the node serves all six."""
        return all(client.service_is_ready() for client in self._clients)

    def wait_for_services(self, timeout_sec: float | None = None) -> bool:
        """Wait for the six services; False when the time is over or the context ends."""
        context = self.node.context
        return context.graph.wait_until(
            self.services_are_ready, timeout_s=timeout_sec, ok=context.ok
        )

    def list_parameters(
        self,
        prefixes: list[str] | None = None,
        depth: int | None = None,
        callback: Callback | None = None,
    ) -> Future[Any]:
        """Names below prefixes."""
        request = ListParameters.Request(prefixes=prefixes or [], depth=depth or 0)
        return _call(self._list, request, callback)

    def get_parameters(self, names: list[str], callback: Callback | None = None) -> Future[Any]:
        """Values."""
        return _call(self._get, GetParameters.Request(names=names), callback)

    def set_parameters(
        self, parameters: Parameters, callback: Callback | None = None
    ) -> Future[Any]:
        """Set each by itself."""
        request = SetParameters.Request(parameters=_messages(parameters))
        return _call(self._set, request, callback)

    def describe_parameters(
        self, names: list[str], callback: Callback | None = None
    ) -> Future[Any]:
        """Descriptors."""
        return _call(self._describe, DescribeParameters.Request(names=names), callback)

    def get_parameter_types(
        self, names: list[str], callback: Callback | None = None
    ) -> Future[Any]:
        """Types."""
        return _call(self._types, GetParameterTypes.Request(names=names), callback)

    def set_parameters_atomically(
        self, parameters: Parameters, callback: Callback | None = None
    ) -> Future[Any]:
        """Set all or none."""
        request = SetParametersAtomically.Request(parameters=_messages(parameters))
        return _call(self._set_atomically, request, callback)

    def delete_parameters(self, names: list[str], callback: Callback | None = None) -> Future[Any]:
        """Unset parameters whose type may change."""
        return self.set_parameters([Parameter(name) for name in names], callback)

    def load_parameter_file(
        self, parameter_file: str, use_wildcard: bool = False, callback: Callback | None = None
    ) -> Future[Any]:
        """Set what a parameter file says, each by itself."""
        found = parameter_dict_from_yaml_file(parameter_file, use_wildcard)
        return self.set_parameters(list(found.values()), callback)

    def load_parameter_file_atomically(
        self, parameter_file: str, use_wildcard: bool = False, callback: Callback | None = None
    ) -> Future[Any]:
        """Set what a parameter file says, all or none."""
        found = parameter_dict_from_yaml_file(parameter_file, use_wildcard)
        return self.set_parameters_atomically(list(found.values()), callback)

    def on_parameter_event(
        self,
        callback: Callable[[ParameterEvent], Any],
        qos_profile: QoSProfile = qos_profile_parameter_events,
        **options: Any,
    ) -> Subscription[Any]:
        """Listen to the events of all nodes."""
        return self.node.create_subscription(
            ParameterEvent, "/parameter_events", callback, qos_profile, **options
        )


def _call(client: Client, request: Any, callback: Callback | None) -> Future[Any]:
    future = client.call_async(request)
    if callback is not None:
        future.add_done_callback(callback)
    return future


def _messages(parameters: Parameters) -> list[ParameterMsg]:
    return [p.to_parameter_msg() if isinstance(p, Parameter) else p for p in parameters]
