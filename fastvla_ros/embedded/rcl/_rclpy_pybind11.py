"""The exceptions that user code imports from rclpy's extension module."""

from __future__ import annotations

from fastvla_core.errors import RosError


class RCLError(RuntimeError):
    """A call that the client library refuses: after shutdown, or an impossible goal state."""


class InvalidHandle(RuntimeError):  # noqa: N818 (rclpy's name)
    """The entity has been destroyed."""


class NodeNameNonExistentError(RCLError):
    """The graph has no node of that name."""


class UnsupportedEventTypeError(RCLError):
    """The middleware has no such QoS event."""


class RCLInvalidROSArgsError(RosError, RCLError):
    """A value behind `--ros-args` is malformed."""


class UnknownROSArgsError(RosError, RuntimeError):
    """There is no such option behind `--ros-args`."""
