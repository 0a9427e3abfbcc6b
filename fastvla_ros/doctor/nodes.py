"""Nodes: each there once, awake, and connected to the next one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fastvla_core.robot.contract import RobotContract
from fastvla_ros.doctor.findings import Finding, error, ok, warning
from fastvla_ros.doctor.graph import LiveGraph, names_of
from fastvla_ros.doctor.observing import LIFECYCLE_NODE

GUARD = "command_guard"

_GRIPPER_TYPES = {
    "parallel_gripper_command": "control_msgs/action/ParallelGripperCommand",
    "gripper_command": "control_msgs/action/GripperCommand",
}
_START = "`fastvla bringup --sim false` or `ros2 launch fastvla bringup.launch.py sim:=false`"


def check_duplicates(graph: LiveGraph, _contract: RobotContract) -> Iterator[Finding]:
    """No two nodes have one name."""
    twice = [name for name, count in Counter(graph.nodes).items() if count > 1]
    for name in twice:
        yield error(
            "nodes",
            f"{Counter(graph.nodes)[name]} nodes are called {name}",
            mend="stop all but one, or give each its namespace: services and parameters of both "
            "answer at random",
        )


def check_policy_server(graph: LiveGraph, _contract: RobotContract) -> Iterator[Finding]:
    """It runs and is active."""
    name = graph.full_name(LIFECYCLE_NODE)
    state = graph.states.get(name)
    if not graph.has_node(LIFECYCLE_NODE):
        yield warning("policy server", f"{name} does not run", mend=f"{_START} starts it")
    elif state is None:
        yield error(
            "policy server",
            f"{name} does not answer {name}/get_state",
            mend="it hangs, or speaks another vendor's DDS: RMW_IMPLEMENTATION must be the same",
        )
    elif state != "active":
        step = "configure" if state == "unconfigured" else "activate"
        mend = f"ros2 lifecycle set {name} {step}; its log says why it is not active"
        yield warning("policy server", f"{name} is {state}: it rejects goals", mend=mend)
    else:
        yield ok("policy server", f"{name} is active")


def check_guard(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """It runs, listens to the server, and nobody passes it by."""
    name = graph.full_name(GUARD)
    listeners = graph.subscriptions_of(contract.outputs.command)
    if not graph.has_node(GUARD):
        yield error("guard", f"{name} does not run: no command arrives", mend=f"{_START} starts it")
    elif not any(endpoint.node == name for endpoint in listeners):
        command = graph.full_name(contract.outputs.command)
        mend = "give server and guard the same contract, namespace and remaps"
        yield error("guard", f"{name} does not listen to '{command}'", mend=mend)
    else:
        yield ok("guard", f"{name} runs")
    passing = tuple(e for e in graph.publishers_of(contract.outputs.topic) if e.node != name)
    if passing:
        yield warning(
            "guard",
            f"{names_of(passing)} publishes '{graph.full_name(contract.outputs.topic)}', past the "
            "guard",
            mend="stop it while goals run: the robot would follow both",
        )


def check_commands(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Somebody takes what the guard sends to the arm."""
    topic = graph.full_name(contract.outputs.topic)
    # A recorder is no controller.
    listeners = tuple(
        e
        for e in graph.subscriptions_of(contract.outputs.topic)
        if e.node.rsplit("/", 1)[-1] not in ("black_box", "recorder") and "rosbag2" not in e.node
    )
    if not listeners:
        yield error(
            "controller",
            f"nobody listens to '{topic}': the robot will not move",
            mend="start the controller (`ros2 control list_controllers`), or set outputs.topic in "
            "the contract to its topic",
        )
    else:
        yield ok("controller", f"{names_of(listeners)} listens to '{topic}'")


def check_gripper(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """The gripper's action is served, with the contract's type."""
    spec = contract.gripper
    if spec is None:
        return
    action = graph.full_name(spec.action)
    servers = graph.publishers_of(f"{spec.action}/_action/feedback")
    kinds = {e.type_name.removesuffix("_FeedbackMessage") for e in servers}
    wanted = _GRIPPER_TYPES[spec.interface]
    if not servers:
        yield error(
            "gripper",
            f"nobody serves the action '{action}'",
            mend="start the gripper's controller, or set gripper.action in the contract",
        )
    elif kinds != {wanted}:
        yield error(
            "gripper",
            f"'{action}' is a {', '.join(sorted(kinds))}, the contract says {wanted}",
            mend="set gripper.interface in the contract: parallel_gripper_command (Jazzy on) or "
            "gripper_command",
        )
    else:
        yield ok("gripper", f"{names_of(servers)} serves '{action}'")
