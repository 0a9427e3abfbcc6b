"""The parameters of a node: declaration, rules, callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterEvent,
    SetParametersResult,
)

from fastvla_ros.embedded.rcl.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from fastvla_ros.embedded.rcl.parameter import PARAMETER_SEPARATOR_STRING, Parameter
from fastvla_ros.embedded.rcl.parameter_rules import broken_rule, fitted, infer_descriptor

OnSet = Callable[[list[Parameter]], SetParametersResult]
EMPTY_AFTER_PRE_SET = (
    "parameter list cannot be empty, this might be due to pre_set_parameters_callback modifying "
    "the original parameters list."
)


class NodeParameters:
    """Declared parameters with their descriptors; `publish` gets an event after each change."""

    def __init__(
        self,
        overrides: dict[str, Any],
        *,
        allow_undeclared: bool,
        publish: Callable[[ParameterEvent], None],
    ) -> None:
        self.overrides = overrides
        self._allow_undeclared = allow_undeclared
        self._publish = publish
        self._lock = threading.RLock()
        self._values: dict[str, Parameter] = {}
        self._descriptors: dict[str, ParameterDescriptor] = {}
        self.pre_set: list[Callable[[list[Parameter]], list[Parameter]]] = []
        self.on_set: list[OnSet] = []
        self.post_set: list[Callable[[list[Parameter]], None]] = []

    def has(self, name: str) -> bool:
        """Whether the parameter is declared."""
        return name in self._values

    def declare(
        self,
        name: str,
        value: Any,
        descriptor: ParameterDescriptor,
        *,
        ignore_override: bool,
    ) -> Parameter:
        """Declare a parameter with a default (or only a Parameter.Type).

        Raises:
            ParameterAlreadyDeclaredException: the name is taken.
            InvalidParameterTypeException: the override has another type.
            InvalidParameterValueException: a range or a callback refuses the value.
        """
        if self.has(name):
            raise ParameterAlreadyDeclaredException([name])
        descriptor = infer_descriptor(name, value, descriptor)
        default = None if isinstance(value, Parameter.Type) else value
        if not ignore_override and name in self.overrides:
            default = self.overrides[name]
        parameter = fitted(Parameter(name, value=default), descriptor)
        result = self._apply([parameter], {name: descriptor})
        if not result.successful:
            if result.reason.startswith("Wrong parameter type"):
                raise InvalidParameterTypeException(parameter, Parameter.Type(descriptor.type).name)
            raise InvalidParameterValueException(name, parameter.value, result.reason)
        return self._values[name]

    def undeclare(self, name: str) -> None:
        """Forget a parameter.

        Raises:
            ParameterNotDeclaredException: there is none of this name.
            ParameterImmutableException: it is read-only.
        """
        if not self.has(name):
            raise ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        del self._values[name], self._descriptors[name]

    def get(self, name: str) -> Parameter:
        """One parameter.

        Raises:
            ParameterNotDeclaredException: there is none of this name.
            ParameterUninitializedException: it has a type but no value.
        """
        if self.has(name):
            parameter = self._values[name]
            dynamic = self._descriptors[name].dynamic_typing
            if parameter.type_ is Parameter.Type.NOT_SET and not dynamic:
                raise ParameterUninitializedException(name)
            return parameter
        if self._allow_undeclared:
            return Parameter(name)
        raise ParameterNotDeclaredException(name)

    def type_of(self, name: str) -> int:
        """The type of one parameter as rcl_interfaces/ParameterType; 0 while it has no value.

        Raises:
            ParameterNotDeclaredException: there is none of this name.
        """
        parameter = self._values.get(name)
        if parameter is None and not self._allow_undeclared:
            raise ParameterNotDeclaredException(name)
        return (Parameter.Type.NOT_SET if parameter is None else parameter.type_).value

    def peek(self, name: str) -> Parameter | None:
        """One parameter, or None when it is not declared."""
        return self._values.get(name)

    def by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters below the prefix, keyed by the rest of their names."""
        start = f"{prefix}{PARAMETER_SEPARATOR_STRING}" if prefix else ""
        return {
            name.removeprefix(start): parameter
            for name, parameter in self._values.items()
            if name.startswith(start)
        }

    def set(self, parameters: Sequence[Parameter]) -> list[SetParametersResult]:
        """Set each by itself."""
        return [self.set_atomically([parameter]) for parameter in parameters]

    def set_atomically(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Set all or none.

        Raises:
            ParameterNotDeclaredException: one is not declared.
        """
        changed = list(parameters)
        if self.pre_set:
            # Each sees what was asked for; what they return is set together.
            changed = [p for callback in self.pre_set for p in callback(list(parameters))]
            if not changed:
                return SetParametersResult(successful=False, reason=EMPTY_AFTER_PRE_SET)
        if not all(isinstance(parameter, Parameter) for parameter in changed):
            raise TypeError(f"parameter must be instance of type '{Parameter!r}'")
        changed = [fitted(p, self._descriptors.get(p.name)) for p in changed]
        unknown = [p.name for p in changed if not self.has(p.name)]
        if unknown and not self._allow_undeclared:
            raise ParameterNotDeclaredException(unknown)
        return self._apply(changed, None)

    def describe(self, name: str) -> ParameterDescriptor:
        """The descriptor, with name and type filled in."""
        if not self.has(name):
            if self._allow_undeclared:
                return ParameterDescriptor(name=name)
            raise ParameterNotDeclaredException(name)
        return self._descriptors[name]

    def set_descriptor(
        self, name: str, descriptor: ParameterDescriptor, alternative: Parameter | None
    ) -> Parameter:
        """Replace a descriptor, and the value too if the old one breaks the new rules.

        Raises:
            ParameterNotDeclaredException: there is none of this name.
            ParameterImmutableException: it is read-only.
            InvalidParameterValueException: the alternative breaks the rules too.
        """
        current = self.get(name)
        if not self.has(name):
            return current
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        reason = ""
        for parameter in (current, current if alternative is None else alternative):
            # As in rclpy, the name in the descriptor is ignored and its type holds.
            descriptor.name = name
            if descriptor.dynamic_typing:
                descriptor.type = parameter.type_.value
            reason = broken_rule(parameter, descriptor, declaring=True)
            if not reason:
                self._values[name], self._descriptors[name] = parameter, descriptor
                return parameter
        raise InvalidParameterValueException(name, parameter.value, reason)

    def list(self, prefixes: Sequence[str], depth: int) -> ListParametersResult:
        """Names below the prefixes, at most `depth` levels deep (0 is no limit)."""
        found = [name for name in self._values if _listed(name, prefixes, depth)]
        separator = PARAMETER_SEPARATOR_STRING
        parents = dict.fromkeys(n.rpartition(separator)[0] for n in found if separator in n)
        return ListParametersResult(names=found, prefixes=list(parents))

    def _apply(
        self, parameters: Sequence[Parameter], descriptors: dict[str, ParameterDescriptor] | None
    ) -> SetParametersResult:
        """Check, ask the callbacks, store, publish; new descriptors come with a declaration."""
        with self._lock:
            accepted: list[Parameter] = []
            for parameter in parameters:
                rules = (descriptors or self._descriptors).get(parameter.name)
                reason = broken_rule(parameter, rules, declaring=descriptors is not None)
                if reason:
                    return SetParametersResult(successful=False, reason=reason)
                accepted.append(parameter)
            for callback in self.on_set:
                result = callback(accepted)
                if not result.successful:
                    return result
            event = ParameterEvent()
            for parameter in accepted:
                self._store(parameter, descriptors, event)
        self._publish(event)
        for callback in self.post_set:
            callback(accepted)
        return SetParametersResult(successful=True)

    def _store(
        self,
        parameter: Parameter,
        descriptors: dict[str, ParameterDescriptor] | None,
        event: ParameterEvent,
    ) -> None:
        name, message = parameter.name, parameter.to_parameter_msg()
        not_set = parameter.type_ is Parameter.Type.NOT_SET
        if not_set and descriptors is None:
            self._values.pop(name, None)
            self._descriptors.pop(name, None)
            event.deleted_parameters.append(message)
            return
        known = self.has(name) and self._values[name].type_ is not Parameter.Type.NOT_SET
        (event.changed_parameters if known else event.new_parameters).append(message)
        self._values[name] = parameter
        if descriptors is not None:
            self._descriptors[name] = descriptors[name]
        elif name not in self._descriptors:
            self._descriptors[name] = ParameterDescriptor(name=name, dynamic_typing=True)
        if self._descriptors[name].dynamic_typing:
            self._descriptors[name].type = parameter.type_.value


def _listed(name: str, prefixes: Iterable[str], depth: int) -> bool:
    separator = PARAMETER_SEPARATOR_STRING
    prefixes = list(prefixes)
    if not prefixes:
        return depth == 0 or name.count(separator) < depth
    for prefix in prefixes:
        if name == prefix:
            return True
        if name.startswith(prefix + separator):
            rest = name[len(prefix) + 1 :]
            if depth == 0 or rest.count(separator) < depth:
                return True
    return False
