"""Where the embedded runtime does on purpose what rclpy does not."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import rclpy
from action_msgs.srv import CancelGoal
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.action import ActionClient, ActionServer
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from fastvla_msgs.action import ExecuteTask
from tests.ros.ros_session import ROOT


def test_a_stopped_reader_blocks_the_publisher_but_not_the_process(ros, start):
    node = ros.node("camera")
    # Only a writer that keeps everything ever waits for a reader.
    publisher = node.create_publisher(Image, "front", QoSProfile(history=HistoryPolicy.KEEP_ALL))
    process = start(ROOT / "tests/ros/rclpy_api/peers/listener.py")
    assert ros.until(lambda: publisher.get_subscription_count() == 1, timeout_s=30)
    image = Image(data=bytes(921_600))
    publisher.publish(image)
    assert publisher.wait_for_all_acked()
    process.send_signal(signal.SIGSTOP)
    durations_s: list[float] = []

    def flood():
        for _ in range(3):
            before = time.monotonic()
            publisher.publish(image)
            durations_s.append(time.monotonic() - before)

    thread = threading.Thread(target=flood, daemon=True)
    longest_s, before = 0.0, time.monotonic()
    end = before + 1.5
    thread.start()
    while before < end:
        time.sleep(0.001)
        now = time.monotonic()
        longest_s, before = max(longest_s, now - before), now
    process.send_signal(signal.SIGCONT)
    thread.join(20)
    assert max(durations_s) > 1.0
    # With the GIL held in the write, as rclpy holds it, this thread would have stood still for
    # 9.9 s too.
    assert longest_s < 3.0


@pytest.mark.parametrize("option", ["debug", "talky:=debug"])
def test_a_nodes_arguments_set_its_own_level_while_it_lives(ros, option):
    node = ros.node("talky", cli_args=["--ros-args", "--log-level", option])
    assert node.get_logger().get_effective_level() is LoggingSeverity.DEBUG
    assert get_logger("other").get_effective_level() is LoggingSeverity.INFO
    ros.destroy(node)
    assert get_logger("talky").get_effective_level() is LoggingSeverity.INFO


def test_the_processs_arguments_set_the_level_of_all_until_the_next_start():
    args = ["--ros-args", "--log-level", "error", "--log-level", "calm:=fatal"]
    for given, expected in ((args, LoggingSeverity.ERROR), ([], LoggingSeverity.INFO)):
        rclpy.init(args=given)
        assert get_logger("any").get_effective_level() is expected
        rclpy.shutdown()


class Failing(LifecycleNode):
    """Cannot be configured."""

    def on_configure(self, state):
        raise ZeroDivisionError("in configure")


def test_an_exception_in_a_transition_is_shown(ros, capfd):
    node = ros.add(Failing("managed", context=ros.context))
    assert node.trigger_configure() is TransitionCallbackReturn.ERROR
    assert "in configure" in capfd.readouterr().err


def test_an_impossible_transition_is_refused_and_the_node_lives_on(ros):
    node = ros.add(LifecycleNode("managed", context=ros.context))
    client = ros.node("manager").create_client(ChangeState, "/managed/change_state")
    assert client.wait_for_service(timeout_sec=5.0)
    for wanted in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CONFIGURE):
        request = ChangeState.Request(transition=Transition(id=wanted))
        answer = ros.result(client.call_async(request))
        assert answer.success is (wanted == Transition.TRANSITION_CONFIGURE)
    with pytest.raises(RCLError, match="not possible"):
        node.trigger_configure()


def test_a_cancel_request_that_is_refused_says_so(ros):
    gate: Future = Future()

    async def execute(handle):
        await gate
        handle.succeed()
        return ExecuteTask.Result()

    node = ros.node("node")
    ActionServer(node, ExecuteTask, "act", execute)
    client = ActionClient(node, ExecuteTask, "act")
    assert client.wait_for_server(timeout_sec=5.0)
    handle = ros.result(client.send_goal_async(ExecuteTask.Goal()))
    other = ros.result(client.send_goal_async(ExecuteTask.Goal()))
    # rclpy's messages are equal when one byte of an array is.
    assert handle != other
    answer = ros.result(handle.cancel_goal_async())
    assert answer.return_code == CancelGoal.Response.ERROR_REJECTED
    gate.set_result(None)
    for one in (handle, other):
        ros.result(one.get_result_async())


def test_an_empty_list_on_the_command_line_is_one_of_the_declared_type(ros):
    node = ros.node("node", cli_args=["--ros-args", "-p", "names:=[]"])
    declared = node.declare_parameter("names", ["a"])
    assert (declared.value, declared.type_) == ([], Parameter.Type.STRING_ARRAY)
    assert node.set_parameters([Parameter("names", value=["b"])])[0].successful


def test_a_node_of_the_same_name_in_another_process_is_reported(ros_with, capfd):
    here, there = ros_with(), ros_with()
    here.node("twin", namespace="/arm")
    here.node("single")
    there.node("twin", namespace="/arm")
    said = []

    def reports():
        here.executor.spin_once(timeout_sec=0)
        said.append(capfd.readouterr().err)
        return "".join(said).count("Another node is named '/arm/twin' too")

    # Each of the two says it, and once.
    assert there.until(lambda: reports() == 2)
    there.spin(0.2)
    assert reports() == 2
    assert "__node:=OTHER_NAME" in "".join(said)
    assert "single" not in "".join(said)


def test_an_executor_that_shuts_down_ends_its_suspended_callbacks(ros):
    node = ros.node("waiting")
    events: list[str] = []

    async def inner():
        events.append("suspended")
        try:
            await Future()
        finally:
            events.append("inner")

    async def outer():
        try:
            await inner()
        finally:
            events.append("outer")

    timer = node.create_timer(0.01, outer)
    assert ros.until(lambda: events)
    assert not timer.callback_group.can_execute(timer)
    not_begun = ros.executor.create_task(outer)
    ros.executor.shutdown()
    assert events == ["suspended", "inner", "outer"]
    assert not_begun.cancelled()
    # Another executor may go on with the node.
    assert timer.callback_group.can_execute(timer)
