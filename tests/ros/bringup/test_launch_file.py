"""The arguments of `ros2 launch fastvla bringup.launch.py`, where ROS 2 is installed."""

import importlib.util

import pytest

from fastvla_core.errors import FastVLAError
from fastvla_core.resources import share_path
from fastvla_ros.bringup_description import ARGUMENTS, BringupOptions, describe

pytest.importorskip("launch_ros", reason="needs ROS 2's launch")

pytestmark = pytest.mark.ros2


@pytest.fixture(scope="module")
def launch_file():
    path = share_path("launch/bringup.launch.py")
    spec = importlib.util.spec_from_file_location("bringup_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def context(launch_file):
    from launch import LaunchContext

    context = LaunchContext()
    for entity in launch_file.generate_launch_description().entities[: len(ARGUMENTS)]:
        entity.execute(context)
    return context


def test_the_defaults_are_those_of_the_command_line(launch_file, context):
    assert launch_file.read_options(context) == BringupOptions()


def test_without_the_simulator_no_simulator_is_started(launch_file, context):
    context.launch_configurations["sim"] = "False"
    nodes = [node.node_executable for node in launch_file.start_nodes(context)]
    assert nodes == ["command_guard", "policy_server", "black_box"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sim", "maybe", "sim:=maybe: 'maybe' is neither true nor false"),
        ("seed", "abc", "for example seed:=0"),
        ("log_level", "loud", "log_level is 'loud'"),
        ("quantization", "int3", "one of nf4, int8, none"),
        ("contract", "/nowhere.yaml", "/nowhere.yaml"),
        ("checkpoint", "/nowhere", "/nowhere does not exist"),
    ],
)
def test_a_wrong_argument_is_one_message_and_starts_nothing(
    launch_file, context, name, value, message
):
    context.launch_configurations[name] = value
    with pytest.raises(FastVLAError, match=message):
        launch_file.start_nodes(context)


@pytest.mark.parametrize("spec", describe(BringupOptions()), ids=lambda spec: spec.name)
def test_the_end_of_a_node_is_no_error_of_the_launch(launch_file, spec):
    from launch.actions import ExecuteProcess

    from launch import LaunchDescription, LaunchService

    process = ExecuteProcess(cmd=["true"], on_exit=launch_file.at_exit(spec))
    service = LaunchService()
    service.include_launch_description(LaunchDescription([process]))
    assert service.run() == 0
