"""What a descriptor allows: types, read-only, ranges."""

from __future__ import annotations

import math
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor

from fastvla_ros.embedded.rcl.parameter import Parameter

# A float is at a step or a bound when it is this close, relatively (as in rclpy).
RELATIVE_TOLERANCE = 1e-6


def infer_descriptor(name: str, value: Any, descriptor: ParameterDescriptor) -> ParameterDescriptor:
    """The descriptor with the parameter's name, and the type that follows from its default.

    Raises:
        ValueError: no type follows, and the descriptor does not allow changing ones.
    """
    fields = {field: getattr(descriptor, field) for field in descriptor._defaults}
    result = ParameterDescriptor(**fields)
    result.name = name
    if isinstance(value, Parameter.Type):
        if value is Parameter.Type.NOT_SET:
            raise ValueError(f"Cannot declare parameter '{name}' as statically typed of NOT_SET")
        if result.dynamic_typing:
            raise ValueError(
                f"When declaring parameter '{name}' a descriptor with `dynamic_typing=True` is "
                "not allowed when the parameter type is provided"
            )
        result.type = value.value
    elif not result.dynamic_typing:
        kind = Parameter.Type.from_parameter_value(value)
        if kind is Parameter.Type.NOT_SET:
            raise ValueError(
                f"Cannot declare a statically typed parameter '{name}' with default value of type "
                "PARAMETER_NOT_SET"
            )
        result.type = kind.value
    return result


def broken_rule(
    parameter: Parameter, descriptor: ParameterDescriptor | None, *, declaring: bool
) -> str:
    """Why the descriptor refuses the parameter, or ""."""
    if descriptor is None:
        return ""
    if descriptor.read_only and not declaring:
        return f"Trying to set a read-only parameter: {parameter.name}."
    if not descriptor.dynamic_typing:
        if parameter.type_ is Parameter.Type.NOT_SET:
            return "" if declaring else "Static parameter cannot be undeclared"
        if parameter.type_.value != descriptor.type:
            return (
                f"Wrong parameter type, expected '{Parameter.Type(descriptor.type)}' "
                f"got '{parameter.type_}'"
            )
    if parameter.type_ is Parameter.Type.INTEGER and descriptor.integer_range:
        return _integer_range(parameter, descriptor.integer_range[0])
    if parameter.type_ is Parameter.Type.DOUBLE and descriptor.floating_point_range:
        return _floating_point_range(parameter, descriptor.floating_point_range[0])
    return ""


def fitted(parameter: Parameter, descriptor: ParameterDescriptor | None) -> Parameter:
    """The parameter; an empty list, whose items have no type, as one of the declared type."""
    if descriptor is None or descriptor.dynamic_typing or parameter.value != []:
        return parameter
    kind = Parameter.Type(descriptor.type)
    return Parameter(parameter.name, kind, []) if kind.name.endswith("_ARRAY") else parameter


def _integer_range(parameter: Parameter, allowed: Any) -> str:
    low, high = sorted((allowed.from_value, allowed.to_value))
    if parameter.value in (low, high):
        return ""
    if not low <= parameter.value <= high:
        return (
            f"Parameter {parameter.name} out of range. "
            f"Min: {low}, Max: {high}, value: {parameter.value}"
        )
    if allowed.step and (parameter.value - low) % allowed.step:
        return (
            f"The parameter value for {parameter.name} is not a valid step. "
            f"Min: {low}, max: {high}, value: {parameter.value}, step: {allowed.step}"
        )
    return ""


def _floating_point_range(parameter: Parameter, allowed: Any) -> str:
    low, high = sorted((allowed.from_value, allowed.to_value))
    value = parameter.value
    if any(math.isclose(value, bound, rel_tol=RELATIVE_TOLERANCE) for bound in (low, high)):
        return ""
    if not low <= value <= high:
        return f"Parameter {parameter.name} out of range Min: {low}, Max: {high}, value: {value}"
    if allowed.step:
        nearest = low + round((value - low) / allowed.step) * allowed.step
        if not math.isclose(nearest, value, rel_tol=RELATIVE_TOLERANCE):
            return (
                f"The parameter value for {parameter.name} is not close enough to a valid step. "
                f"Min: {low}, max: {high}, value: {value}, step: {allowed.step}"
            )
    return ""
