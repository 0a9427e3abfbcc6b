"""Names, remaps, command lines: no wire needed."""

from __future__ import annotations

import pytest
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)
from rclpy.utilities import remove_ros_args

from fastvla_core.errors import RosError
from fastvla_ros.embedded.rcl.arguments import parse_arguments
from fastvla_ros.embedded.rcl.names import (
    expand_name,
    remap_name,
    remap_node,
    validate_namespace,
    validate_node_name,
)
from fastvla_ros.embedded.rcl.parameter_overrides import overrides_for
from fastvla_ros.embedded.wire.names import ros_service, ros_service_type, ros_topic, ros_type


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("command", "/arm/command"),
        ("/command", "/command"),
        ("~/stop", "/arm/server/stop"),
        ("~", "/arm/server"),
        ("{node}/x", "/arm/server/x"),
        ("a/b", "/arm/a/b"),
    ],
)
def test_names_expand_relative_to_the_node(name, full):
    assert expand_name(name, node="server", namespace="/arm") == full


def test_names_expand_in_the_root_namespace():
    assert expand_name("command", node="server", namespace="/") == "/command"
    assert expand_name("~/stop", node="server", namespace="/") == "/server/stop"


@pytest.mark.parametrize("name", ["", "a b", "1a", "a//b/", "a/", "~a", "{nope}", "a-b"])
def test_bad_topic_names_are_refused(name):
    with pytest.raises(InvalidTopicNameException):
        expand_name(name, node="server", namespace="/arm")


def test_bad_service_node_and_namespace_names_are_refused():
    with pytest.raises(InvalidServiceNameException):
        expand_name("a b", node="n", namespace="/", is_service=True)
    with pytest.raises(InvalidNodeNameException):
        validate_node_name("a/b")
    with pytest.raises(InvalidNamespaceException):
        validate_namespace("arm")
    with pytest.raises(InvalidNamespaceException):
        validate_namespace("/arm//x")


def rules(*texts):
    args = ["--ros-args"]
    for text in texts:
        args += ["-r", text]
    return parse_arguments(args).remaps


def remapped(name, *texts, is_service=False):
    return remap_name(name, rules(*texts), node="server", namespace="/arm", is_service=is_service)


def test_the_first_remap_that_fits_counts_and_is_expanded():
    assert remapped("/arm/command", "command:=cmd", "command:=other") == "/arm/cmd"
    assert remapped("/arm/command", "command:=/cmd") == "/cmd"
    assert remapped("/arm/server/stop", "~/stop:=/stop") == "/stop"
    assert remapped("/arm/command", "other:=x") == "/arm/command"


def test_remaps_can_be_for_one_node_or_for_one_kind():
    assert remapped("/arm/command", "guard:command:=x") == "/arm/command"
    assert remapped("/arm/command", "server:command:=x") == "/arm/x"
    assert remapped("/arm/command", "rosservice://command:=x") == "/arm/command"
    assert remapped("/arm/command", "rosservice://command:=x", is_service=True) == "/arm/x"


def test_the_node_and_its_namespace_can_be_renamed():
    assert remap_node("server", "/", rules("__node:=other", "__ns:=/left")) == ("other", "/left")
    assert remap_node("server", "/", rules("guard:__node:=other")) == ("server", "/")


def test_parameters_come_from_options_and_files_and_the_last_one_wins(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    rate: 1.0\n    deep: {a: 1, b: {c: 2}}\n"
        "arm:\n  server:\n    ros__parameters:\n      rate: 2.0\n"
        "/other/server:\n  ros__parameters:\n      rate: 3.0\n"
    )
    arguments = parse_arguments(
        ["prog", "--ros-args", "--params-file", str(path), "-p", "name:=x", "-p", "guard:n:=1"]
    )
    found = overrides_for(arguments.parameters, "/arm/server")
    assert found == {"rate": 2.0, "deep.a": 1, "deep.b.c": 2, "name": "x"}
    assert overrides_for(arguments.parameters, "/arm/guard")["n"] == 1
    assert overrides_for(arguments.parameters, "/x/y/z")["rate"] == 1.0


@pytest.mark.parametrize(
    "args",
    [["-r", "a=b"], ["-p", "x"], ["--params-file", "/nowhere.yaml"], ["-r"], ["--nope", "1"]],
)
def test_malformed_arguments_are_refused(args):
    with pytest.raises(RosError):
        parse_arguments(["--ros-args", *args])


def test_a_file_without_ros_parameters_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("server:\n  rate: 1.0\n")
    with pytest.raises(RosError, match="ros__parameters"):
        parse_arguments(["--ros-args", "--params-file", str(path)])


def test_arguments_outside_the_ros_sections_stay():
    args = ["prog", "--a", "--ros-args", "-r", "a:=b", "--", "last", "--ros-args", "-p", "x:=1"]
    assert remove_ros_args(args) == ["prog", "--a", "last"]


def test_log_levels_and_switches_are_read():
    arguments = parse_arguments(
        [
            "--ros-args",
            "--log-level",
            "debug",
            "--log-level",
            "arm.server:=warn",
            "--disable-rosout-logs",
        ]
    )
    assert arguments.log_levels == {"": "debug", "arm.server": "warn"}
    assert not arguments.rosout
    assert arguments.stdout


def test_dds_names_are_read_back():
    assert ros_topic("rt/arm/x") == "/arm/x"
    assert ros_topic("rq/arm/xRequest") is None
    assert ros_service("rq/arm/xRequest") == "/arm/x"
    assert ros_service("rr/arm/xReply") == "/arm/x"
    assert ros_type("sensor_msgs::msg::dds_::Image_") == "sensor_msgs/msg/Image"
    assert ros_service_type("std_srvs::srv::dds_::Trigger_Request_") == "std_srvs/srv/Trigger"
