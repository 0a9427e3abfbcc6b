"""`ros2 launch fastvla bringup.launch.py`: the nodes that `fastvla bringup` starts, too."""

from dataclasses import fields

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from fastvla_ros.bringup_description import ARGUMENTS, BringupOptions, describe
from launch import LaunchContext, LaunchDescription


def start_nodes(context: LaunchContext) -> list[Node]:
    """One process per node; when one of them ends, everything ends."""
    options = read_options(context)
    return [
        Node(
            package="fastvla",
            executable=spec.executable,
            name=spec.name,
            namespace=options.namespace,
            parameters=[dict(spec.parameters)]
            + ([options.params_file] if options.params_file else []),
            remappings=list(spec.remappings),
            ros_arguments=["--log-level", options.log_level],
            output="screen",
            on_exit=[EmitEvent(event=Shutdown(reason=f"{spec.name} ended"))],
        )
        for spec in describe(options)
    ]


def read_options(context: LaunchContext) -> BringupOptions:
    """The launch arguments in the types of `BringupOptions`."""
    values = {}
    for field in fields(BringupOptions):
        text = LaunchConfiguration(field.name).perform(context)
        if isinstance(field.default, bool):
            values[field.name] = text.lower() in ("true", "1", "yes", "on")
        else:
            values[field.name] = type(field.default)(text)
    return BringupOptions(**values)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start the nodes of the one description."""
    defaults = {field.name: field.default for field in fields(BringupOptions)}
    arguments = [
        DeclareLaunchArgument(
            name,
            default_value=str(defaults[name]).lower()
            if isinstance(defaults[name], bool)
            else str(defaults[name]),
            description=text,
        )
        for name, text in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])
