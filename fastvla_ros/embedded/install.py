"""Puts the embedded runtime under ROS's import names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

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
    "logging_service",
    "node",
    "parameter",
    "parameter_client",
    "parameter_event_handler",
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
    "type_hash",
    "utilities",
    "wait_for_message",
)
# Those whose names are in another module here.
ELSEWHERE = {
    "expand_topic_name": "names",
    "impl.logging_severity": "logging",
    "impl.rcutils_logger": "logging",
    "topic_or_service_is_hidden": "names",
    "validate_full_topic_name": "names",
    "validate_namespace": "names",
    "validate_node_name": "names",
    "validate_parameter_name": "names",
    "validate_topic_name": "names",
}
SOURCES = {f"rclpy.{name}": f"{PREFIX}.{name}" for name in (*MODULES, "impl")} | {
    f"rclpy.{name}": f"{PREFIX}.{source}" for name, source in ELSEWHERE.items()
}


class Aliases(MetaPathFinder, Loader):
    """Imports `rclpy.node` and the like when they are first named, and never a second time."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("rclpy."):
            return None
        if fullname not in SOURCES:
            # Otherwise Python would find the file below our own package and load it twice.
            raise ModuleNotFoundError(f"the embedded rclpy has no '{fullname}'", name=fullname)
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """An empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(SOURCES[name])


def install() -> None:
    """Register the interface packages and rclpy in `sys.modules`.

    Raises:
        DependencyError: cyclonedds or rosbags is missing, or cyclonedds is another version's.
    """
    try:
        from fastvla_ros.embedded.wire.libddsc import library
        from fastvla_ros.embedded.wire.modules import interface_modules
        from fastvla_ros.embedded.wire.runtime import wire_runtime

        library()
        factory = wire_runtime().factory
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the embedded ROS runtime needs the package '{error.name}'",
            mend="pip install cyclonedds==11.0.1 'rosbags>=0.11.9,<0.12' (cyclonedds has wheels "
            "for x86-64 Linux only; elsewhere install ROS 2 and source its setup.bash)",
        ) from error
    # The modules of rclpy import messages by their ROS names.
    sys.modules.update(interface_modules(factory))
    sys.meta_path.insert(0, Aliases())
    sys.modules["rclpy"] = importlib.import_module(PREFIX)
