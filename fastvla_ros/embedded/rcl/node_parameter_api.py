"""The parameter methods of `Node`, in rclpy's words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterValue,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMsg

from fastvla_ros.embedded.rcl.exceptions import ParameterAlreadyDeclaredException
from fastvla_ros.embedded.rcl.names import validate_parameter_name
from fastvla_ros.embedded.rcl.node_parameters import NodeParameters, OnSet
from fastvla_ros.embedded.rcl.parameter import Parameter, parameter_value_to_python


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
            InvalidParameterException: the name is empty.
            ParameterAlreadyDeclaredException, InvalidParameterTypeException,
            InvalidParameterValueException, ValueError: see `NodeParameters.declare`.
        """
        if value is None and descriptor is None:
            entry: tuple[Any, ...] = (name,)
        else:
            entry = (name, value, ParameterDescriptor() if descriptor is None else descriptor)
        return self.declare_parameters("", [entry], ignore_override)[0]

    def declare_parameters(
        self, namespace: str, parameters: Sequence[tuple[Any, ...]], ignore_override: bool = False
    ) -> list[Parameter]:
        """Declare tuples of name, value and descriptor below a namespace.

        Raises:
            TypeError: an entry is not such a tuple; otherwise as `declare_parameter`.
        """
        entries = [
            declaration(namespace, entry, index=index) for index, entry in enumerate(parameters)
        ]
        taken = [name for name, _, _ in entries if self._parameters.has(name)]
        if taken:
            raise ParameterAlreadyDeclaredException(taken)
        return [
            self._parameters.declare(name, value, rules, ignore_override=ignore_override)
            for name, value, rules in entries
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

    def get_parameter_type(self, name: str) -> int:
        """The type of one parameter, as the number of rcl_interfaces/ParameterType."""
        return self._parameters.type_of(name)

    def get_parameter_types(self, names: Sequence[str]) -> list[int]:
        """The types of several parameters."""
        return [self._parameters.type_of(name) for name in names]

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters below a prefix, keyed by the rest of their names."""
        return self._parameters.by_prefix(prefix)

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[SetParametersResult]:
        """Set each by itself; a refusal is in the results."""
        return self._parameters.set(parameter_list)

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> SetParametersResult:
        """Set all or none."""
        return self._parameters.set_atomically(parameter_list)

    def list_parameters(self, prefixes: list[str], depth: int) -> ListParametersResult:
        """Names below prefixes, at most `depth` levels deep (0 is no limit).

        Raises:
            TypeError: the prefixes are no list of texts, or the depth is no int.
            ValueError: the depth is negative.
        """
        if not isinstance(prefixes, list) or not all(isinstance(p, str) for p in prefixes):
            raise TypeError("The prefixes argument must be a list of str")
        if not isinstance(depth, int):
            raise TypeError("The depth must be instance of type int")
        if depth < 0:
            raise ValueError("The depth must be greater than or equal to zero")
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
        alternative_value: ParameterValue | None = None,
    ) -> ParameterValue:
        """Replace a descriptor; the parameter's value, or the alternative, must fit it."""
        alternative = None
        if alternative_value is not None:
            message = ParameterMsg(name=name, value=alternative_value)
            alternative = Parameter.from_parameter_msg(message)
        result = self._parameters.set_descriptor(name, descriptor, alternative)
        return result.get_parameter_value()

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


def declaration(
    namespace: str, entry: tuple[Any, ...], *, index: int
) -> tuple[str, Any, ParameterDescriptor]:
    """The name, the default and the descriptor of an entry of `declare_parameters`.

    Raises:
        TypeError: it is no such tuple.
        InvalidParameterException: the name is empty.
    """
    if not 1 <= len(entry) <= 3:
        raise TypeError(
            f"Invalid parameter tuple length at index {index} in parameters list: {entry}; "
            "expecting length between 1 and 3"
        )
    name = entry[0]
    value = entry[1] if len(entry) > 1 else None
    rules = entry[2] if len(entry) > 2 else ParameterDescriptor()
    if not isinstance(name, str):
        raise TypeError(f"First element {name} at index {index} in parameters list is not a str.")
    if not isinstance(rules, ParameterDescriptor):
        raise TypeError(
            f"Third element {rules} at index {index} in parameters list is not a "
            "ParameterDescriptor."
        )
    validate_parameter_name(name)
    name = f"{namespace}.{name}" if namespace else name
    if len(entry) == 1:
        warnings.warn(
            f"when declaring parameter named '{name}', declaring a parameter only providing its "
            "name is deprecated. Pass a default value, a type, or a descriptor with "
            "`dynamic_typing=True`",
            stacklevel=4,
        )
        rules.dynamic_typing = True
    if isinstance(value, ParameterValue):
        value = parameter_value_to_python(value)
    return name, value, rules
