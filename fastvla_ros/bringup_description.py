"""Which nodes make up a running robot: one description for `ros2 launch` and `fastvla bringup`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fastvla_core.models.vision_tokens.options import TOKEN_HELP

ParameterValue: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node, however it is started.

    Attributes:
        name: Its name on the graph.
        executable: Console script, for `ros2 launch` and processes of their own.
        module, class_name: The class, for nodes that share a process.
        parameters: Values that differ from the node's defaults.
        remappings: Pairs (from, to).
        own_process: It must outlive the others, so it never shares a process with them.
        optional: The others go on when it ends.
    """

    name: str
    executable: str
    module: str
    class_name: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    own_process: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BringupOptions:
    """What the launch arguments say; their names are the same."""

    namespace: str = ""
    params_file: str = ""
    use_sim_time: bool = False
    log_level: str = "info"
    autostart: bool = True
    contract: str = "tabletop"
    checkpoint: str = "nano"
    quantization: str = "nf4"
    device: str = "auto"
    token_pruning: str = "stored"
    token_keep: float = 0.5
    camera_reuse: float = -1.0
    prefix_reuse: bool = False
    sim: bool = True
    seed: int = 0
    black_box: bool = True


ARGUMENTS: Mapping[str, str] = {
    "namespace": "namespace of every node",
    "params_file": "YAML file with parameters, as ROS 2 writes them; it wins over the others",
    "use_sim_time": "take the time from /clock, which the simulated robot then publishes",
    "log_level": "debug, info, warn, error or fatal",
    "autostart": "configure and activate the policy server at once",
    "contract": "robot contract: a shipped name (tabletop) or a YAML file",
    "checkpoint": "policy: a shipped name (nano), a folder, a Hugging Face repository, or the "
    "address of another machine (grpcs://host:port)",
    "quantization": "weights: nf4, int8 or none",
    "device": "auto, cpu or cuda",
    **TOKEN_HELP,
    "sim": "start the simulated robot; false on a real one",
    "seed": "scene of the simulated robot",
    "black_box": "keep a bag of the last 30 s before each abnormal end of a goal",
}
"""Launch arguments and their help, the fields of `BringupOptions`."""


def describe(options: BringupOptions) -> tuple[NodeSpec, ...]:
    """The nodes to start, in the order in which they should come up."""
    common: dict[str, ParameterValue] = {
        "contract": options.contract,
        "use_sim_time": options.use_sim_time,
    }
    guard = NodeSpec(
        name="command_guard",
        executable="command_guard",
        module="fastvla_ros.nodes.command_guard_node",
        class_name="CommandGuardNode",
        parameters=common,
        own_process=True,
    )
    robot = NodeSpec(
        name="sim_robot",
        executable="sim_robot",
        module="fastvla_ros.nodes.sim_robot_node",
        class_name="SimRobotNode",
        parameters={**common, "seed": options.seed, "publish_clock": options.use_sim_time},
    )
    server = NodeSpec(
        name="policy_server",
        executable="policy_server",
        module="fastvla_ros.nodes.policy_server_node",
        class_name="PolicyServerNode",
        parameters={
            **common,
            "checkpoint": options.checkpoint,
            "quantization": options.quantization,
            "device": options.device,
            **{name: getattr(options, name) for name in TOKEN_HELP},
            "autostart": options.autostart,
        },
    )
    nodes = (guard, robot, server) if options.sim else (guard, server)
    return (*nodes, _black_box(common)) if options.black_box else nodes


def _black_box(parameters: Mapping[str, ParameterValue]) -> NodeSpec:
    return NodeSpec(
        name="black_box",
        executable="black_box",
        module="fastvla_ros.nodes.black_box_node",
        class_name="BlackBoxNode",
        parameters=parameters,
        own_process=True,
        optional=True,
    )


def ros_arguments(
    spec: NodeSpec, *, namespace: str = "", params_file: str = "", log_level: str = ""
) -> list[str]:
    """The node's command line after its executable: `--ros-args ...`."""
    arguments = ["--ros-args", "-r", f"__node:={spec.name}"]
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for source, target in spec.remappings:
        arguments += ["-r", f"{source}:={target}"]
    for name, value in spec.parameters.items():
        # JSON is valid YAML, and quotes keep a text like "1" a text.
        arguments += ["-p", f"{name}:={json.dumps(value)}"]
    if params_file:
        arguments += ["--params-file", params_file]
    if log_level:
        arguments += ["--log-level", log_level]
    return arguments


def shared(specs: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The nodes that may share a process."""
    return [spec for spec in specs if not spec.own_process]


def separate(specs: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The nodes that need a process of their own."""
    return [spec for spec in specs if spec.own_process]
