"""Puts the embedded runtime under ROS's import names."""

from __future__ import annotations

import importlib
import sys

from fastvla_core.errors import DependencyError

PREFIX = "fastvla_ros.embedded.rcl"

# The modules of rclpy that there are.
MODULES = (
    "_rclpy_pybind11",
    "action",
    "action.client",
    "action.graph",
    "action.server",
    "callback_groups",
    "client",
    "clock",
    "clock_type",
    "constants",
    "context",
    "duration",
    "event_handler",
    "exceptions",
    "executors",
    "guard_condition",
    "lifecycle",
    "lifecycle.managed_entity",
    "lifecycle.node",
    "lifecycle.publisher",
    "logging",
    "node",
    "parameter",
    "parameter_service",
    "publisher",
    "qos",
    "serialization",
    "service",
    "signals",
    "subscription",
    "task",
    "time",
    "time_source",
    "timer",
    "topic_endpoint_info",
    "utilities",
)


def install() -> None:
    """Register the interface packages and rclpy in `sys.modules`.

    Raises:
        DependencyError: cyclonedds or rosbags is missing.
    """
    try:
        from fastvla_ros.embedded.wire.modules import interface_modules
        from fastvla_ros.embedded.wire.runtime import wire_runtime

        factory = wire_runtime().factory
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the embedded ROS runtime needs the package '{error.name}'",
            mend="pip install cyclonedds==11.0.1 'rosbags>=0.11.9,<0.12' (cyclonedds has wheels "
            "for x86-64 Linux only; elsewhere install ROS 2 and source its setup.bash)",
        ) from error
    # The modules of rclpy import messages by their ROS names.
    sys.modules.update(interface_modules(factory))
    modules = {"rclpy": importlib.import_module(PREFIX)}
    for name in MODULES:
        modules[f"rclpy.{name}"] = importlib.import_module(f"{PREFIX}.{name}")
    sys.modules.update(modules)
