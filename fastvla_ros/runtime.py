"""Makes `import rclpy` work: the real one, or the embedded subset where there is none."""

from __future__ import annotations

import importlib

from fastvla_core.errors import DependencyError, RosError


def ensure_ros() -> None:
    """Make rclpy and the message packages importable; a second call does nothing.

    Raises:
        RosError: a real rclpy is there and cannot be imported.
        DependencyError: a real rclpy is there without fastvla_msgs, or there is none and the
            packages of the embedded runtime are missing.
    """
    try:
        importlib.import_module("rclpy")
    except ModuleNotFoundError as error:
        if error.name != "rclpy":
            raise RosError(
                f"the installed rclpy cannot be imported: {error}",
                mend="use the Python that this ROS 2 was built for, or a shell without its "
                "setup.bash to run on the embedded runtime",
            ) from error
        from fastvla_ros.embedded.install import install

        install()
    except ImportError as error:
        raise RosError(
            f"the installed rclpy cannot be imported: {error}",
            mend="use the Python that this ROS 2 was built for, or a shell without its "
            "setup.bash to run on the embedded runtime",
        ) from error
    _check_interfaces()


def uses_embedded_ros() -> bool:
    """Whether `rclpy` is the embedded subset; call `ensure_ros` first."""
    return importlib.import_module("rclpy").__name__ != "rclpy"


def _check_interfaces() -> None:
    """From a source checkout, unbuilt interfaces import as an empty namespace package."""
    try:
        importlib.import_module("fastvla_msgs.action").ExecuteTask  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise DependencyError(
            "the interfaces of fastvla_msgs are not built for this ROS 2",
            mend="colcon build --packages-select fastvla_msgs, then source install/setup.bash",
        ) from error
