"""The six services through which others see and set a node's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)

from fastvla_ros.embedded.rcl.exceptions import (
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from fastvla_ros.embedded.rcl.node_parameters import NodeParameters
from fastvla_ros.embedded.rcl.parameter import Parameter
from fastvla_ros.embedded.rcl.qos import qos_profile_parameters

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class ParameterService:
    """Serves a node's parameters; an unknown name empties the whole answer, as in rclpy."""

    def __init__(self, node: Node, parameters: NodeParameters) -> None:
        self._parameters = parameters
        for srv_type, name, callback in (
            (DescribeParameters, "describe_parameters", self._describe),
            (GetParameters, "get_parameters", self._get),
            (GetParameterTypes, "get_parameter_types", self._types),
            (ListParameters, "list_parameters", self._list),
            (SetParameters, "set_parameters", self._set),
            (SetParametersAtomically, "set_parameters_atomically", self._set_atomically),
        ):
            node.create_service(srv_type, f"~/{name}", callback, qos_profile=qos_profile_parameters)

    def _describe(self, request: Any, response: Any) -> Any:
        try:
            response.descriptors = [self._parameters.describe(name) for name in request.names]
        except ParameterNotDeclaredException:
            response.descriptors = []
        return response

    def _get(self, request: Any, response: Any) -> Any:
        try:
            found = [self._parameters.get(name) for name in request.names]
            response.values = [parameter.get_parameter_value() for parameter in found]
        except (ParameterNotDeclaredException, ParameterUninitializedException):
            response.values = []
        return response

    def _types(self, request: Any, response: Any) -> Any:
        try:
            response.types = [self._parameters.type_of(name) for name in request.names]
        except ParameterNotDeclaredException:
            response.types = []
        return response

    def _list(self, request: Any, response: Any) -> Any:
        response.result = self._parameters.list(request.prefixes, request.depth)
        return response

    def _set(self, request: Any, response: Any) -> Any:
        response.results = [self._set_one([message]) for message in request.parameters]
        return response

    def _set_atomically(self, request: Any, response: Any) -> Any:
        response.result = self._set_one(request.parameters)
        return response

    def _set_one(self, messages: list[Any]) -> SetParametersResult:
        try:
            parameters = [Parameter.from_parameter_msg(message) for message in messages]
            return self._parameters.set_atomically(parameters)
        except ParameterNotDeclaredException as error:
            return SetParametersResult(successful=False, reason=str(error))
