"""The exceptions that user code imports from rclpy's extension module."""

from __future__ import annotations


class RCLError(RuntimeError):
    """A call that the client library refuses: after shutdown, or an impossible goal state."""


class InvalidHandle(RuntimeError):  # noqa: N818 (rclpy's name)
    """The entity has been destroyed."""
