"""`--ros-args`: of one node and of the process."""

from __future__ import annotations

import pytest
from rclpy._rclpy_pybind11 import RCLError, RCLInvalidROSArgsError, UnknownROSArgsError
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.utilities import remove_ros_args


def remap(*rules):
    return ["--ros-args", *(word for rule in rules for word in ("-r", rule))]


@pytest.mark.parametrize(
    ("rules", "topic", "expected"),
    [
        (["command:=cmd"], "command", "/arm/cmd"),
        (["command:=/cmd"], "command", "/cmd"),
        (["command:=cmd", "command:=other"], "command", "/arm/cmd"),
        (["/arm/command:=x"], "command", "/arm/x"),
        (["command:=x"], "/command", "/command"),
        (["other:=x"], "command", "/arm/command"),
        (["~/stop:=/stop"], "~/stop", "/stop"),
        (["stop:=~/stop"], "stop", "/arm/server/stop"),
        (["server:command:=x"], "command", "/arm/x"),
        (["guard:command:=x"], "command", "/arm/command"),
        (["rostopic://command:=x"], "command", "/arm/x"),
        (["rosservice://command:=x"], "command", "/arm/command"),
        (["server:rostopic://command:=x"], "command", "/arm/x"),
        (["__ns:=/left"], "command", "/left/command"),
        (["__node:=other"], "~/stop", "/arm/other/stop"),
        (["server:__node:=other", "__ns:=/left"], "~/stop", "/left/other/stop"),
        (["guard:__node:=other"], "~/stop", "/arm/server/stop"),
    ],
)
def test_topics_are_remapped(ros, rules, topic, expected):
    node = ros.node("server", namespace="/arm", cli_args=remap(*rules))
    assert node.resolve_topic_name(topic) == expected


def test_services_have_rules_of_their_own(ros):
    rules = remap("rosservice://command:=x", "rostopic://other:=y")
    node = ros.node("server", namespace="/arm", cli_args=rules)
    assert node.resolve_service_name("command") == "/arm/x"
    assert node.resolve_service_name("other") == "/arm/other"
    assert node.resolve_topic_name("command", only_expand=True) == "/arm/command"


def test_a_node_can_be_renamed(ros):
    node = ros.node("server", cli_args=remap("__node:=other", "__ns:=/left/arm"))
    assert node.get_fully_qualified_name() == "/left/arm/other"
    assert node.get_logger().name == "left.arm.other"


def test_the_processs_rules_hold_for_every_node_that_wants_them(ros_with):
    ros = ros_with("--ros-args", "-r", "command:=cmd", "-p", "rate:=5", "--", "--my-own")
    node = ros.node("server", cli_args=remap("command:=mine"))
    # A node's own rules come first.
    assert node.resolve_topic_name("command") == "/mine"
    assert ros.node("plain").resolve_topic_name("command") == "/cmd"
    alone = ros.node("alone", use_global_arguments=False)
    assert alone.resolve_topic_name("command") == "/command"
    assert node.declare_parameter("rate", 1).value == 5
    assert alone.declare_parameter("rate", 1).value == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("yes", True),
        ("off", False),
        ("3", 3),
        ("-3", -3),
        ("0x1F", 31),
        ("017", 15),
        ("2.5", 2.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("-.inf", float("-inf")),
        ("hello", "hello"),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("null", "null"),
        ("[1, 2]", [1, 2]),
        ("[1.0, 2.5]", [1.0, 2.5]),
        ("[a, b]", ["a", "b"]),
        ("[true, false]", [True, False]),
    ],
)
def test_values_have_the_types_of_ros_not_of_yaml(ros, text, value):
    node = ros.node(
        "node",
        cli_args=["--ros-args", "-p", f"x:={text}"],
        automatically_declare_parameters_from_overrides=True,
    )
    found = node.get_parameter("x").value
    found = list(found) if isinstance(value, list) else found
    assert (found, type(found)) == (value, type(value))


def params_file(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return ["--ros-args", "--params-file", str(path)]


FILE = """
/**:
  ros__parameters:
    rate: 1.0
    deep: {a: 1, b: {c: [u, v]}}
arm:
  server:
    ros__parameters:
      rate: 2.0
/arm/*:
  ros__parameters:
    one_level: true
/other/server:
  ros__parameters:
    rate: 3.0
"""


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("server", "/arm", {"rate": 2.0, "one_level": True}),
        ("guard", "/arm", {"rate": 1.0, "one_level": True}),
        ("server", "/other", {"rate": 3.0}),
        ("server", "/", {"rate": 1.0}),
    ],
)
def test_a_file_says_which_nodes_it_means(ros, tmp_path, name, namespace, expected):
    node = ros.node(
        name,
        namespace=namespace,
        cli_args=params_file(tmp_path, FILE),
        automatically_declare_parameters_from_overrides=True,
    )
    values = {n: p.value for n, p in node.get_parameters_by_prefix("").items()}
    assert values.pop("deep.a") == 1
    assert list(values.pop("deep.b.c")) == ["u", "v"]
    # Those that every node has.
    assert not values.pop("use_sim_time")
    values.pop("start_type_description_service", None)
    assert values == expected


def test_the_later_of_two_files_and_of_two_values_wins(ros, tmp_path):
    first = params_file(tmp_path, "/**: {ros__parameters: {a: 1, b: 1}}")
    args = [*first, "-p", "b:=2", "-p", "c:=2", "-p", "c:=3"]
    node = ros.node("node", cli_args=args)
    assert [node.declare_parameter(n, 0).value for n in "abc"] == [1, 2, 3]


def test_among_patterns_the_one_that_came_up_last_wins(ros, tmp_path):
    text = "/**: {ros__parameters: {a: 1}}\nnode: {ros__parameters: {b: 1}}"
    # `-p` means all nodes, so it joins the file's `/**`, which stands before `node`.
    args = [*params_file(tmp_path, text), "-p", "a:=2", "-p", "b:=2", "-p", "node:c:=3"]
    node = ros.node("node", cli_args=args)
    assert [node.declare_parameter(n, 0).value for n in "abc"] == [2, 1, 3]


@pytest.mark.parametrize(
    "args",
    [
        ["-r", "a=b"],
        ["-r", ":=b"],
        ["-r", "a:="],
        ["-r", "a b:=c"],
        ["-r", "a:={node}/c"],
        ["-r", "__ns:=left"],
        ["-r", "__node:=a/b"],
        ["-r"],
        ["-p", "x"],
        ["-p", "x:=[1, a]"],
        ["-p", "x:="],
        ["--params-file", "/nowhere.yaml"],
        ["--log-level", "loud"],
    ],
    ids=" ".join,
)
def test_malformed_arguments_are_refused(ros, args):
    with pytest.raises(RCLInvalidROSArgsError):
        ros.node("node", cli_args=["--ros-args", *args])


@pytest.mark.parametrize(
    "text",
    [
        "server:\n  rate: 1.0\n",
        "ros__parameters:\n  rate: 1.0\n",
        "server:\n  ros__parameters: 3\n",
        "server:\n  ros__parameters:\n    rate:\n",
        "server:\n  ros__parameters:\n    rate: [1, 2.0]\n",
        "server: [\n",
        "server:\n\tros__parameters:\n",
    ],
)
def test_a_file_that_is_no_parameter_file_is_refused(ros, tmp_path, text):
    with pytest.raises(RCLInvalidROSArgsError):
        ros.node("server", cli_args=params_file(tmp_path, text))


def test_unknown_options_are_refused(ros):
    with pytest.raises(UnknownROSArgsError):
        ros.node("node", cli_args=["--ros-args", "--nope"])


def test_bad_arguments_of_the_process_are_refused(ros_with):
    with pytest.raises(RCLError):
        ros_with("--ros-args", "-r", "a=b")
    with pytest.raises(UnknownROSArgsError):
        ros_with("--ros-args", "--nope")


def test_what_is_not_for_ros_stays():
    args = ["prog", "--a", "--ros-args", "-r", "a:=b", "--", "last", "--ros-args", "-p", "x:=1"]
    assert remove_ros_args(args) == ["prog", "--a", "last"]


def test_an_enclave_is_announced(ros_with):
    ros = ros_with("--ros-args", "-e", "/robot/arm")
    node = ros.node("node")
    expected = ("node", "/", "/robot/arm")
    assert ros.until(lambda: expected in node.get_node_names_and_namespaces_with_enclaves())


def test_log_levels_are_for_all_or_for_one_logger():
    import subprocess
    import sys

    from tests.ros.ros_session import child_environment

    # In a process of its own: rclpy's levels outlive their context.
    code = (
        "import sys\n"
        "from fastvla_ros.runtime import ensure_ros\n"
        "ensure_ros()\n"
        "import rclpy\n"
        "from rclpy.logging import get_logger\n"
        "rclpy.init(args=sys.argv)\n"
        "levels = [get_logger(n).get_effective_level().name for n in ('any', 'calm', 'calm.x')]\n"
        "print(*levels)\n"
        "rclpy.shutdown()\n"
    )
    levels = ["--log-level", "error", "--log-level", "calm:=fatal"]
    done = subprocess.run(
        [sys.executable, "-c", code, "--ros-args", *levels],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=True,
    )
    assert done.stdout.split() == ["ERROR", "FATAL", "FATAL"]
    assert get_logger("any").get_effective_level() is LoggingSeverity.INFO


@pytest.mark.parametrize("option", ["--disable-rosout-logs", "--enable-rosout-logs"])
def test_logs_go_to_rosout_unless_that_is_switched_off(ros_with, option):
    from rcl_interfaces.msg import Log

    ros = ros_with("--ros-args", option)
    node, got = ros.node("talker"), []
    node.create_subscription(Log, "/rosout", got.append, 10)
    publishers = 1 if option == "--enable-rosout-logs" else 0
    ros.spin(0.3)
    assert node.count_publishers("/rosout") == publishers
