"""The exceptions of rclpy that our nodes and tests name."""

from __future__ import annotations

from typing import Any

from fastvla_ros.embedded.rcl import _rclpy_pybind11 as _rclpy

InvalidHandle = _rclpy.InvalidHandle


class NotInitializedException(Exception):  # noqa: N818 (rclpy's name)
    """`rclpy.init()` has not been called, or the context was shut down."""

    def __init__(self, *args: object) -> None:
        super().__init__("rclpy.init() has not been called", *args)


class NameValidationException(Exception):  # noqa: N818 (rclpy's name)
    """A name breaks ROS's rules.

    Args:
        kind: What the name is for, such as "topic name".
        index: Where in the name the rule is broken.
    """

    def __init__(self, kind: str, name: str, error: str, index: int) -> None:
        super().__init__(f"Invalid {kind}: {error}:\n  '{name}'\n   {' ' * index}^")


class InvalidNamespaceException(NameValidationException):
    """A namespace breaks ROS's rules."""

    def __init__(self, name: str, error: str, index: int) -> None:
        super().__init__("namespace", name, error, index)


class InvalidNodeNameException(NameValidationException):
    """A node name breaks ROS's rules."""

    def __init__(self, name: str, error: str, index: int) -> None:
        super().__init__("node name", name, error, index)


class InvalidTopicNameException(NameValidationException):
    """A topic name breaks ROS's rules."""

    def __init__(self, name: str, error: str, index: int) -> None:
        super().__init__("topic name", name, error, index)


class InvalidServiceNameException(NameValidationException):
    """A service name breaks ROS's rules."""

    def __init__(self, name: str, error: str, index: int) -> None:
        super().__init__("service name", name, error, index)


class ParameterException(Exception):  # noqa: N818 (rclpy's name)
    """Base of the parameter errors; `parameters` names the offenders."""

    def __init__(self, error: str, parameters: Any) -> None:
        super().__init__(f"{error}: {parameters}")


class ParameterNotDeclaredException(ParameterException):
    """The parameter has not been declared."""

    def __init__(self, parameters: Any) -> None:
        super().__init__("Invalid access to undeclared parameter(s)", parameters)


class ParameterAlreadyDeclaredException(ParameterException):
    """The parameter has been declared before."""

    def __init__(self, parameters: Any) -> None:
        super().__init__("Parameter(s) already declared", parameters)


class ParameterImmutableException(ParameterException):
    """The parameter is read-only."""

    def __init__(self, parameter: Any) -> None:
        super().__init__("Attempted to modify read-only parameter", parameter)


class ParameterUninitializedException(ParameterException):
    """A parameter of a fixed type has no value."""

    def __init__(self, parameter: Any) -> None:
        super().__init__("The parameter is not initialized", parameter)


class InvalidParameterException(ParameterException):
    """The parameter's name breaks the rules."""

    def __init__(self, parameter: Any) -> None:
        super().__init__("Invalid parameter name", parameter)


class InvalidParameterTypeException(ParameterException):
    """The value has another type than the parameter."""

    def __init__(self, desired: Any, expected: str) -> None:
        super().__init__(
            f"Trying to set parameter '{desired.name}' to '{desired.value}' of type "
            f"'{desired.type_.name}', expecting type '{expected}'",
            desired,
        )


class InvalidParameterValueException(ParameterException):
    """A callback or a range refused the value."""

    def __init__(self, parameter: Any, value: Any, reason: str) -> None:
        super().__init__(
            f"Invalid parameter value ({value}) for parameter. Reason: {reason}", parameter
        )


class ROSInterruptException(Exception):  # noqa: N818 (rclpy's name)
    """A sleep was ended by shutdown."""

    def __init__(self) -> None:
        super().__init__("rclpy.shutdown() has been called")
