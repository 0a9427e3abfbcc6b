"""The embedded runtime against a real ROS 2 with rmw_cyclonedds_cpp, both ways.

Set FASTVLA_ROS2_SETUP to a script that sources it and an overlay with fastvla_msgs. Do not source
it where pytest runs: the embedded side needs an environment without rclpy.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.ros.ros_session import child_environment

SETUP = os.environ.get("FASTVLA_ROS2_SETUP", "")
PEER = Path(__file__).parent / "peers" / "robot.py"
ACTION = "/arm/robot/execute_task"

pytestmark = [
    pytest.mark.ros2,
    pytest.mark.slow,
    # A dozen command lines of ROS 2 in one test, on a machine that may do other work.
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SETUP, reason="FASTVLA_ROS2_SETUP names no real ROS 2"),
]


def in_real_ros(command):
    """A command line that runs with ROS 2 sourced, on this run's domain."""
    return ["bash", "-c", f"set -e; . {shlex.quote(SETUP)}; exec {command}"]


def real(command, timeout_s=40):
    """Run a command of real ROS 2 to its end; what it printed."""
    done = subprocess.run(
        in_real_ros(f"timeout -s INT {timeout_s} {command}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Real nodes complain here about endpoints that they do not understand.
    assert_calm(done.stderr)
    return done.stdout or done.stderr


def assert_calm(log):
    """No node has warned or worse."""
    assert not any(word in log for word in ("WARN", "ERROR", "FATAL")), log


def first_line(command, expected, timeout_s=40):
    """Run a command of real ROS 2 until it prints a line with `expected`; that line."""
    process = subprocess.Popen(
        in_real_ros(f"timeout -s INT {timeout_s} {command}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = []
    while line := process.stdout.readline():
        seen.append(line)
        if expected in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert expected in seen[-1], "".join(seen)
    assert_calm("".join(seen))
    return seen[-1]


def stop(process):
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    return output


@pytest.fixture(scope="class")
def embedded_robot(domain_id):
    """The peer on the embedded runtime."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(PEER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=child_environment(),
    )
    yield process
    assert_calm(stop(process))


@pytest.fixture(scope="class")
def real_robot(domain_id):
    """The same peer on real rclpy."""
    process = subprocess.Popen(
        in_real_ros(f"python3 {shlex.quote(str(PEER))}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    # It would complain, for example, about a missing type hash, or a type that does not fit.
    assert_calm(stop(process))


@pytest.fixture(scope="module", autouse=True)
def no_daemon(domain_id):
    yield
    subprocess.run(in_real_ros("ros2 daemon stop"), check=False, capture_output=True)


class TestRealToolsSeeTheEmbeddedNode:
    def test_the_node_and_its_parts(self, embedded_robot):
        assert "/arm/robot" in real("ros2 node list --spin-time 2 --no-daemon").split()
        text = real("ros2 node info /arm/robot --spin-time 2 --no-daemon")
        for expected in (
            "/arm/joint_states: sensor_msgs/msg/JointState",
            "/arm/say: std_msgs/msg/String",
            "/arm/robot/set: std_srvs/srv/SetBool",
            "/arm/robot/change_state: lifecycle_msgs/srv/ChangeState",
            "/arm/robot/execute_task: fastvla_msgs/action/ExecuteTask",
            "/rosout: rcl_interfaces/msg/Log",
        ):
            assert expected in text
        topics = real("ros2 topic list -t --spin-time 2 --no-daemon")
        assert "/arm/front [sensor_msgs/msg/Image]" in topics

    def test_topics_both_ways(self, embedded_robot):
        state = yaml.safe_load_all(real("ros2 topic echo --once /arm/joint_states"))
        assert next(state)["position"] == [0.5, -1.25]
        qos = "--qos-reliability reliable --qos-durability transient_local"
        mode = real(f"ros2 topic echo --once {qos} /arm/mode")
        assert "ready" in mode
        echo = subprocess.Popen(
            in_real_ros("timeout -s INT 40 ros2 topic echo --once /arm/echo"),
            stdout=subprocess.PIPE,
            text=True,
        )
        real("ros2 topic pub -t 20 -r 10 -w 1 /arm/say std_msgs/msg/String '{data: hello}'")
        assert "hello" in echo.communicate(timeout=40)[0]

    def test_the_rate_of_a_topic(self, embedded_robot):
        line = first_line("ros2 topic hz /arm/joint_states --window 20", "average rate:")
        assert 5.0 < float(line.split(":")[1]) < 20.0

    def test_a_topics_endpoints(self, embedded_robot):
        text = real("ros2 topic info -v /arm/joint_states --spin-time 2 --no-daemon")
        assert "Node name: robot" in text
        assert "Node namespace: /arm" in text
        assert "Topic type: sensor_msgs/msg/JointState" in text
        assert (
            "Topic type hash: RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c588" in text
        )
        assert "Reliability: RELIABLE" in text
        assert "Durability: VOLATILE" in text

    def test_a_service(self, embedded_robot):
        text = real("ros2 service call /arm/robot/set std_srvs/srv/SetBool '{data: true}'")
        assert "success=True, message='got True'" in text

    def test_parameters(self, embedded_robot):
        assert "speed" in real("ros2 param list /arm/robot").split()
        assert "1.5" in real("ros2 param get /arm/robot speed")
        assert "successful" in real("ros2 param set /arm/robot speed 2.5")
        dumped = yaml.safe_load(real("ros2 param dump /arm/robot"))
        values = dumped["/arm/robot"]["ros__parameters"]
        assert values["speed"] == 2.5
        assert values["joints"] == ["joint1", "joint2"]
        assert "double" in real("ros2 param describe /arm/robot speed")
        described = real("ros2 param describe /arm/robot limit")
        for expected in ("Type: integer", "Description: at most", "Min value: 1", "Step: 2"):
            assert expected in described
        assert "out of range" in real("ros2 param set /arm/robot limit 11")
        assert "read-only" in real("ros2 param set /arm/robot model other")
        assert "3" in real("ros2 param get /arm/robot limit")

    def test_lifecycle(self, embedded_robot):
        assert "unconfigured" in real("ros2 lifecycle get /arm/robot")
        assert "successful" in real("ros2 lifecycle set /arm/robot configure")
        assert "inactive" in real("ros2 lifecycle get /arm/robot")
        assert "activate [3]" in real("ros2 lifecycle list /arm/robot")
        for step in ("activate", "deactivate", "cleanup"):
            assert "successful" in real(f"ros2 lifecycle set /arm/robot {step}")
        assert "unconfigured" in real("ros2 lifecycle get /arm/robot")
        assert "/arm/robot" in real("ros2 lifecycle nodes").split()

    def test_an_action_with_feedback(self, embedded_robot):
        assert f"{ACTION} [fastvla_msgs/action/ExecuteTask]" in real("ros2 action list -t")
        assert "Action servers: 1" in real(f"ros2 action info {ACTION}")
        goal = "fastvla_msgs/action/ExecuteTask '{task: short}'"
        text = real(f"ros2 action send_goal -f {ACTION} {goal}")
        assert text.count("chunk_index:") == 3
        assert "outcome: 1" in text
        assert "SUCCEEDED" in text

    def test_an_action_that_is_cancelled(self, embedded_robot):
        # The command line's own Ctrl-C does not cancel in Jazzy, with a real server either.
        script = shlex.quote(str(PEER.with_name("cancel_goal.py")))
        assert real(f"python3 {script}") == "code 0 status 5 error 1\n"

    def test_all_goals_are_cancelled_by_the_command_line(self, embedded_robot):
        goal = "fastvla_msgs/action/ExecuteTask '{task: long}'"
        sending = subprocess.Popen(
            in_real_ros(f"timeout -s INT 60 ros2 action send_goal -f {ACTION} {goal}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while "Feedback" not in sending.stdout.readline():
            assert sending.poll() is None
        cancel = "action_msgs/srv/CancelGoal '{}'"
        assert "return_code=0" in real(f"ros2 service call {ACTION}/_action/cancel_goal {cancel}")
        text = sending.communicate(timeout=60)[0]
        assert "CANCELED" in text
        assert_calm(text)


class TestTheEmbeddedSideUsesARealNode:
    @pytest.fixture
    def node(self, ros, real_robot):
        node = ros.node("client")
        assert node.wait_for_node("/arm/robot", timeout=30)
        return node

    def test_the_graph(self, ros, node):
        assert ("robot", "/arm") in node.get_node_names_and_namespaces()
        expected = ("/arm/robot/set", ["std_srvs/srv/SetBool"])
        assert ros.until(
            lambda: expected in node.get_service_names_and_types_by_node("robot", "/arm")
        )
        assert ros.until(lambda: node.count_publishers("/arm/front") == 1)

    def test_topics_both_ways(self, ros, node):
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String

        states, modes, echoes = [], [], []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(JointState, "/arm/joint_states", states.append, 10)
        node.create_subscription(String, "/arm/mode", modes.append, latched)
        node.create_subscription(String, "/arm/echo", echoes.append, 10)
        say = node.create_publisher(String, "/arm/say", 10)
        assert ros.until(lambda: states and modes)
        assert list(states[0].position) == [0.5, -1.25]
        assert modes[0].data == "ready"
        assert ros.until(lambda: say.get_subscription_count() == 1)
        assert ros.until(lambda: next(iter(self.echo_readers(node))) == 1)
        say.publish(String(data="hello"))
        assert ros.until(lambda: echoes)
        assert echoes[0].data == "hello"

    @staticmethod
    def echo_readers(node):
        for subscription in node.subscriptions:
            if subscription.topic_name == "/arm/echo":
                yield subscription.get_publisher_count()

    def test_images_both_ways(self, ros, node):
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_msgs.msg import String

        images, echoes = [], []
        node.create_subscription(Image, "/arm/front", images.append, qos_profile_sensor_data)
        node.create_subscription(String, "/arm/echo", echoes.append, 10)
        look = node.create_publisher(Image, "/arm/look", qos_profile_sensor_data)
        assert ros.until(lambda: images)
        pixels = np.frombuffer(images[0].data, np.uint8)
        assert np.array_equal(pixels, np.tile(np.arange(256, dtype=np.uint8), 3600))
        assert ros.until(lambda: look.get_subscription_count() == 1)
        assert ros.until(lambda: next(iter(self.echo_readers(node))) == 1)
        image = Image(width=640, height=480, data=np.full(921_600, 7, np.uint8))
        look.publish(image)
        assert ros.until(lambda: echoes)
        assert echoes[0].data == "640x480 700 921600"

    def test_services_parameters_and_lifecycle(self, ros, node):
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.srv import GetParameters, SetParameters
        from rclpy.parameter import Parameter
        from std_srvs.srv import SetBool

        def call(srv, name, **fields):
            client = node.create_client(srv, f"/arm/robot/{name}")
            assert client.wait_for_service(timeout_sec=10)
            return ros.result(client.call_async(srv.Request(**fields)))

        assert call(SetBool, "set", data=True).message == "got True"
        speed = Parameter("speed", value=3.5).to_parameter_msg()
        assert call(SetParameters, "set_parameters", parameters=[speed]).results[0].successful
        values = call(GetParameters, "get_parameters", names=["speed", "joints"]).values
        assert values[0].double_value == 3.5
        assert values[1].string_array_value == ["joint1", "joint2"]
        configure = ChangeState.Request().transition
        configure.id = 1
        assert call(ChangeState, "change_state", transition=configure).success
        assert call(GetState, "get_state").current_state.label == "inactive"

    def test_actions_with_feedback_and_cancelling(self, ros, node):
        from action_msgs.msg import GoalStatus
        from control_msgs.action import ParallelGripperCommand
        from rclpy.action import ActionClient

        from fastvla_msgs.action import ExecuteTask

        client, feedback = ActionClient(node, ExecuteTask, "/arm/robot/execute_task"), []
        assert client.wait_for_server(timeout_sec=10)
        handle = ros.result(client.send_goal_async(ExecuteTask.Goal(task="short"), feedback.append))
        assert handle.accepted
        answer = ros.result(handle.get_result_async())
        assert answer.status == GoalStatus.STATUS_SUCCEEDED
        assert answer.result.outcome == ExecuteTask.Result.OUTCOME_SUCCESS
        assert ros.until(lambda: len(feedback) == 3)
        handle = ros.result(client.send_goal_async(ExecuteTask.Goal(task="long")))
        result = handle.get_result_async()
        assert ros.result(handle.cancel_goal_async()).return_code == 0
        assert ros.result(result).status == GoalStatus.STATUS_CANCELED
        gripper = ActionClient(node, ParallelGripperCommand, "/arm/robot/gripper")
        assert gripper.wait_for_server(timeout_sec=10)
        goal = ParallelGripperCommand.Goal()
        goal.command.name, goal.command.position = ["gripper"], [0.04]
        handle = ros.result(gripper.send_goal_async(goal))
        answer = ros.result(handle.get_result_async())
        assert answer.result.reached_goal
        assert list(answer.result.state.position) == [0.04]


def test_every_type_has_the_hash_of_real_ros():
    from fastvla_ros.embedded.wire.runtime import wire_runtime

    prefixes = subprocess.run(
        in_real_ros("printenv AMENT_PREFIX_PATH"), capture_output=True, text=True, check=True
    ).stdout.strip()
    store = wire_runtime().factory.store
    compared = 0
    for prefix in prefixes.split(":"):
        for path in Path(prefix).glob("share/*/*/*.json"):
            kind, package = path.parent.name, path.parent.parent.name
            if path.stem not in store.names(package, kind):
                continue
            for entry in json.loads(path.read_text())["type_hashes"]:
                name = entry["type_name"]
                parts = ("_Request", "_Response", "_Goal", "_Result", "_Feedback", "Message")
                if kind != "msg" and (not name.endswith(parts) or "_Event" in name):
                    continue
                assert store.type_hash(name) == entry["hash_string"], name
                compared += 1
    assert compared > 150
