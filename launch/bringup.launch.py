"""`ros2 launch fastvla bringup.launch.py`: the nodes that `fastvla bringup` starts, too."""

from argparse import ArgumentTypeError
from dataclasses import Field, fields

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from fastvla_core.errors import FastVLAError
from fastvla_ros.bringup_description import ARGUMENTS, BringupOptions, NodeSpec, describe
from fastvla_ros.commands_cli.bringup import check_options, truth
from launch import LaunchContext, LaunchDescription


def start_nodes(context: LaunchContext) -> list[Node]:
    """One process per node; when one of them ends that is not optional, everything ends."""
    options = read_options(context)
    check_options(options)
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
            on_exit=at_exit(spec),
        )
        for spec in describe(options)
    ]


def at_exit(spec: NodeSpec) -> EmitEvent | None:
    """What follows the end of a node; an optional one is not missed."""
    return None if spec.optional else EmitEvent(event=Shutdown(reason=f"{spec.name} ended"))


def read_options(context: LaunchContext) -> BringupOptions:
    """The launch arguments in the types of `BringupOptions`.

    Raises:
        FastVLAError: a value is none of its type; names the argument.
    """
    values = {}
    for field in fields(BringupOptions):
        text = LaunchConfiguration(field.name).perform(context)
        read = truth if isinstance(field.default, bool) else type(field.default)
        try:
            values[field.name] = read(text)
        except (ValueError, ArgumentTypeError) as error:
            raise FastVLAError(
                f"{field.name}:={text}: {error}", mend=f"for example {field.name}:={_text(field)}"
            ) from error
    return BringupOptions(**values)


def _text(field: Field) -> str:
    """A default as one writes it on the command line."""
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start the nodes of the one description."""
    defaults = {field.name: _text(field) for field in fields(BringupOptions)}
    arguments = [
        DeclareLaunchArgument(name, default_value=defaults[name], description=text)
        for name, text in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])
