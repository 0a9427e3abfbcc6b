"""One description of nodes for `ros2 launch` and `fastvla bringup`."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import yaml

from fastvla_ros.bringup_description import ARGUMENTS, BringupOptions, describe, ros_arguments
from fastvla_ros.runtime import ensure_ros

ROOT = Path(__file__).parents[3]


def test_what_must_outlive_the_server_has_a_process_of_its_own():
    own = {spec.name: spec.optional for spec in describe(BringupOptions()) if spec.own_process}
    assert own == {"command_guard": False, "black_box": True}


def test_the_black_box_can_be_left_out():
    assert "black_box" not in {spec.name for spec in describe(BringupOptions(black_box=False))}


def test_on_a_real_robot_nothing_is_simulated():
    names = {spec.name for spec in describe(BringupOptions(sim=False))}
    assert names == {"command_guard", "policy_server", "black_box"}


def test_every_node_agrees_on_contract_and_clock():
    options = BringupOptions(contract="other", use_sim_time=True)
    for spec in describe(options):
        assert spec.parameters["contract"] == "other"
        assert spec.parameters["use_sim_time"] is True
    robot = next(spec for spec in describe(options) if spec.name == "sim_robot")
    assert robot.parameters["publish_clock"] is True


def test_the_policy_server_is_told_about_its_visual_tokens():
    options = BringupOptions(token_pruning="adaptive", token_keep=0.25, camera_reuse=2.0)
    (server,) = (spec for spec in describe(options) if spec.name == "policy_server")
    told = {name: server.parameters[name] for name in ("token_pruning", "token_keep")}
    assert told == {"token_pruning": "adaptive", "token_keep": 0.25}
    assert server.parameters["camera_reuse"] == 2.0
    assert server.parameters["prefix_reuse"] is False


def test_every_option_has_a_help_text():
    assert list(ARGUMENTS) == [field.name for field in dataclasses.fields(BringupOptions)]


def test_every_node_is_where_the_description_says_and_declares_its_parameters():
    ensure_ros()
    for spec in describe(BringupOptions()):
        module = importlib.import_module(spec.module)
        assert hasattr(module, spec.class_name)
        assert importlib.util.find_spec(f"fastvla_ros.nodes.{spec.executable}")


@pytest.mark.parametrize("text", ["1", "true", "nano", "/a b/c", "it's", 'a "b"'])
def test_texts_stay_texts_on_the_command_line(text):
    specs = {spec.name: spec for spec in describe(BringupOptions(checkpoint=text))}
    spec = specs["policy_server"]
    arguments = ros_arguments(spec, namespace="left/arm", params_file="p.yaml", log_level="warn")
    assert arguments[:5] == ["--ros-args", "-r", "__node:=policy_server", "-r", "__ns:=/left/arm"]
    given = next(a for a in arguments if a.startswith("checkpoint:="))
    assert yaml.safe_load(given.partition(":=")[2]) == text
    assert arguments[-4:] == ["--params-file", "p.yaml", "--log-level", "warn"]


def test_the_launch_file_does_not_shadow_the_launch_package_of_ros():
    assert not (ROOT / "launch" / "__init__.py").exists()
    compile((ROOT / "launch" / "bringup.launch.py").read_text(), "bringup.launch.py", "exec")


@pytest.mark.ros2
def test_the_launch_file_starts_what_the_description_says():
    launch = pytest.importorskip("launch.launch_description_sources")
    source = launch.PythonLaunchDescriptionSource(str(ROOT / "launch" / "bringup.launch.py"))
    declared = source.try_get_launch_description_without_context().get_launch_arguments()
    assert [argument.name for argument in declared] == list(ARGUMENTS)
