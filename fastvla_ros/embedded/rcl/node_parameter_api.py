"""The parameter methods of `Node`, in rclpy's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import ListParametersResult, ParameterDescriptor, SetParametersResult

from fastvla_ros.embedded.rcl.node_parameters import NodeParameters, OnSet
from fastvla_ros.embedded.rcl.parameter import Parameter


class NodeParameterApi:
    """Delegates to `NodeParameters`."""

    if TYPE_CHECKING:
        _parameters: NodeParameters

    def declare_parameter(
        self,
        name: str,
        value: Any = None,
        descriptor: ParameterDescriptor | None = None,
        ignore_override: bool = False,
    ) -> Parameter:
        """Declare with a default value, or with a Parameter.Type and no value.

        Raises:
            ParameterAlreadyDeclaredException, InvalidParameterTypeException,
            InvalidParameterValueException, ValueError: see `NodeParameters.declare`.
        """
        rules = ParameterDescriptor() if descriptor is None else descriptor
        return self._parameters.declare(name, value, rules, ignore_override=ignore_override)

    def declare_parameters(
        self, namespace: str, parameters: Sequence[tuple[Any, ...]], ignore_override: bool = False
    ) -> list[Parameter]:
        """Declare tuples of name, value and descriptor below a namespace."""
        prefix = f"{namespace}." if namespace else ""
        return [
            self.declare_parameter(
                f"{prefix}{entry[0]}", *entry[1:], ignore_override=ignore_override
            )
            for entry in parameters
        ]

    def undeclare_parameter(self, name: str) -> None:
        """Forget a parameter."""
        self._parameters.undeclare(name)

    def has_parameter(self, name: str) -> bool:
        """Whether it is declared."""
        return self._parameters.has(name)

    def get_parameter(self, name: str) -> Parameter:
        """One parameter."""
        return self._parameters.get(name)

    def get_parameters(self, names: Sequence[str]) -> list[Parameter]:
        """Several parameters."""
        return [self._parameters.get(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        """The parameter, or the alternative when it is not set."""
        parameter = self._parameters.peek(name)
        if parameter is not None and parameter.type_ is not Parameter.Type.NOT_SET:
            return parameter
        return Parameter(name) if alternative_value is None else alternative_value

    def get_parameter_type(self, name: str) -> Parameter.Type:
        """The type of one parameter."""
        return self._parameters.get(name).type_

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters below a prefix, keyed by the rest of their names."""
        return self._parameters.by_prefix(prefix)

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[SetParametersResult]:
        """Set each by itself; a refusal is in the results."""
        return self._parameters.set(parameter_list)

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> SetParametersResult:
        """Set all or none."""
        return self._parameters.set_atomically(parameter_list)

    def list_parameters(self, prefixes: Sequence[str], depth: int) -> ListParametersResult:
        """Names below prefixes."""
        return self._parameters.list(prefixes, depth)

    def describe_parameter(self, name: str) -> ParameterDescriptor:
        """The descriptor of one parameter."""
        return self._parameters.describe(name)

    def describe_parameters(self, names: Sequence[str]) -> list[ParameterDescriptor]:
        """The descriptors of several parameters."""
        return [self._parameters.describe(name) for name in names]

    def set_descriptor(
        self,
        name: str,
        descriptor: ParameterDescriptor,
        alternative_value: Any = None,
    ) -> Any:
        """Replace a descriptor; the parameter's value, or the alternative, must fit it."""
        return self._parameters.set_descriptor(name, descriptor, alternative_value).value

    def add_pre_set_parameters_callback(
        self, callback: Callable[[list[Parameter]], list[Parameter]]
    ) -> None:
        """May change a list of parameters before it is set; the latest is called first."""
        self._parameters.pre_set.insert(0, callback)

    def add_on_set_parameters_callback(self, callback: OnSet) -> None:
        """May refuse a list of parameters; the latest is called first."""
        self._parameters.on_set.insert(0, callback)

    def add_post_set_parameters_callback(self, callback: Callable[[list[Parameter]], None]) -> None:
        """Is told what was set; the latest is called first."""
        self._parameters.post_set.insert(0, callback)

    def remove_pre_set_parameters_callback(self, callback: Callable[..., Any]) -> None:
        """Undo `add_pre_set_parameters_callback`; ValueError when it was not added."""
        self._parameters.pre_set.remove(callback)

    def remove_on_set_parameters_callback(self, callback: Callable[..., Any]) -> None:
        """Undo `add_on_set_parameters_callback`; ValueError when it was not added."""
        self._parameters.on_set.remove(callback)

    def remove_post_set_parameters_callback(self, callback: Callable[..., Any]) -> None:
        """Undo `add_post_set_parameters_callback`; ValueError when it was not added."""
        self._parameters.post_set.remove(callback)
