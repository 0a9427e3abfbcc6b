"""What a descriptor allows: types, read-only, ranges."""

from __future__ import annotations

import math
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, ParameterType

from fastvla_ros.embedded.rcl.parameter import Parameter

# A float is at a step or a bound when it is this close, relatively (as in rclpy).
RELATIVE_TOLERANCE = 1e-9


def infer_descriptor(name: str, value: Any, descriptor: ParameterDescriptor) -> ParameterDescriptor:
    """The descriptor with the parameter's name, and the type that follows from its default.

    Raises:
        ValueError: no type follows, and the descriptor does not allow changing ones.
    """
    fields = {field: getattr(descriptor, field) for field in descriptor._defaults}
    result = ParameterDescriptor(**fields)
    result.name = name
    if isinstance(value, Parameter.Type):
        result.type = value.value
    elif not result.dynamic_typing:
        result.type = Parameter.Type.from_parameter_value(value).value
    if result.type == ParameterType.PARAMETER_NOT_SET and not result.dynamic_typing:
        raise ValueError(
            f"parameter '{name}' has no default, no type and no descriptor with dynamic_typing"
        )
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
        unset_at_declaration = declaring and parameter.value is None
        fits = parameter.type_.value == descriptor.type or _empty_list_fits(parameter, descriptor)
        if not fits and not unset_at_declaration:
            return (
                f"Wrong parameter type, expected '{Parameter.Type(descriptor.type)}' "
                f"got '{parameter.type_}'"
            )
    if parameter.type_ is Parameter.Type.INTEGER and descriptor.integer_range:
        return _integer_range(parameter, descriptor.integer_range[0])
    if parameter.type_ is Parameter.Type.DOUBLE and descriptor.floating_point_range:
        return _floating_point_range(parameter, descriptor.floating_point_range[0])
    return ""


def _empty_list_fits(parameter: Parameter, descriptor: ParameterDescriptor) -> bool:
    """An empty list in YAML says nothing about the type of its items."""
    value = parameter.value
    return (
        isinstance(value, list)
        and not value
        and (Parameter.Type(descriptor.type).name.endswith("_ARRAY"))
    )


def _integer_range(parameter: Parameter, allowed: Any) -> str:
    low, high = sorted((allowed.from_value, allowed.to_value))
    if parameter.value in (low, high):
        return ""
    if not low <= parameter.value <= high:
        return f"Parameter {parameter.name} out of range. Min: {low}, Max: {high}, " + (
            f"value: {parameter.value}"
        )
    if allowed.step and (parameter.value - low) % allowed.step:
        return f"The parameter value for {parameter.name} is not a valid step."
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
            return f"The parameter value for {parameter.name} is not close enough to a valid step."
    return ""
