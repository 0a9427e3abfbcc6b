"""Publishers and subscriptions over DDS."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from rclpy._rclpy_pybind11 import InvalidHandle
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.wait_for_message import wait_for_message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String, UInt32

LATCHED = QoSProfile(depth=2, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def said(capfd, text):
    """Whether `text` has been logged since the test began."""
    seen = []

    def look():
        seen.append(capfd.readouterr().err)
        return text in "".join(seen)

    return look


def matched(publisher, subscriptions=1):
    return lambda: publisher.get_subscription_count() == subscriptions


@pytest.mark.parametrize("qos", [10, qos_profile_sensor_data], ids=["reliable", "best-effort"])
def test_messages_arrive_in_order(ros, qos):
    node, got = ros.node("node"), []
    node.create_subscription(UInt32, "count", lambda m: got.append(m.data), qos)
    publisher = node.create_publisher(UInt32, "count", qos)
    assert ros.until(matched(publisher))
    for number in range(5):
        publisher.publish(UInt32(data=number))
    assert ros.until(lambda: len(got) == 5)
    assert got == list(range(5))


def test_the_queue_keeps_the_latest_messages(ros):
    node, got = ros.node("node"), []
    node.create_subscription(UInt32, "count", lambda m: got.append(m.data), 2)
    publisher = node.create_publisher(UInt32, "count", 100)
    assert ros.until(matched(publisher))
    for number in range(50):
        publisher.publish(UInt32(data=number))
    # Let the wait thread take everything before anything is delivered.
    time.sleep(0.2)
    assert ros.until(lambda: len(got) == 2)
    ros.until(lambda: False, timeout_s=0.05)
    assert got == [48, 49]


def test_a_late_subscription_gets_what_a_transient_local_publisher_keeps(ros):
    node, got = ros.node("node"), []
    publisher = node.create_publisher(String, "mode", LATCHED)
    for text in ("a", "b", "c"):
        publisher.publish(String(data=text))
    late = ros.node("late")
    late.create_subscription(String, "mode", lambda m: got.append(m.data), LATCHED)
    assert ros.until(lambda: len(got) == 2)
    assert got == ["b", "c"]


def test_every_one_of_many_subscriptions_is_counted(ros):
    node = ros.node("node")
    publisher = node.create_publisher(UInt32, "count", 1)
    for _ in range(20):
        node.create_subscription(UInt32, "count", lambda m: None, 1)
    assert ros.until(matched(publisher, 20))


def test_an_image_outlives_its_node_and_its_context():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("node", context=context)
    executor, got = SingleThreadedExecutor(context=context), []
    executor.add_node(node)
    node.create_subscription(Image, "front", got.append, 1)
    publisher = node.create_publisher(Image, "front", 1)
    end = time.monotonic() + 10.0
    while not got and time.monotonic() < end:
        publisher.publish(Image(data=bytes(range(250)) * 1000))
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    context.shutdown()
    assert bytes(got[0].data) == bytes(range(250)) * 1000


def test_a_late_volatile_subscription_gets_nothing(ros):
    node, got = ros.node("node"), []
    publisher = node.create_publisher(String, "mode", LATCHED)
    publisher.publish(String(data="old"))
    node.create_subscription(String, "mode", lambda m: got.append(m.data), 10)
    assert ros.until(matched(publisher))
    publisher.publish(String(data="new"))
    assert ros.until(lambda: got)
    assert got == ["new"]


def test_incompatible_qos_is_reported_on_both_sides(ros, capfd):
    node, got, events = ros.node("node"), [], []
    node.create_publisher(Image, "front", qos_profile_sensor_data)
    node.create_subscription(
        Image,
        "front",
        got.append,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=events.append),
    )
    assert ros.until(lambda: events)
    assert int(events[0].last_policy_kind) == QoSPolicyKind.RELIABILITY
    assert events[0].total_count == 1
    # The publisher has no callback of its own, so it warns.
    assert ros.until(said(capfd, "requesting incompatible QoS"))


def test_a_subscription_without_event_callbacks_warns(ros, capfd):
    node = ros.node("node")
    node.create_subscription(Image, "front", lambda m: None, 1)
    node.create_publisher(Image, "front", qos_profile_sensor_data)
    assert ros.until(said(capfd, "offering incompatible QoS"))


def test_the_callback_may_take_the_messages_times(ros):
    node, infos = ros.node("node"), []
    node.create_subscription(UInt32, "count", lambda m, info: infos.append(info), 10)
    publisher = node.create_publisher(UInt32, "count", 10)
    assert ros.until(matched(publisher))
    publisher.publish(UInt32())
    assert ros.until(lambda: infos)
    assert 0 < infos[0]["source_timestamp"] <= infos[0]["received_timestamp"]


def test_raw_subscriptions_get_bytes_and_publishers_send_them(ros):
    node, got = ros.node("node"), []
    node.create_subscription(UInt32, "count", got.append, 10, raw=True)
    publisher = node.create_publisher(UInt32, "count", 10)
    assert ros.until(matched(publisher))
    publisher.publish(b"\x00\x01\x00\x00\x07\x00\x00\x00")
    assert ros.until(lambda: got)
    assert got == [b"\x00\x01\x00\x00\x07\x00\x00\x00"]


def test_publishing_another_type_is_refused(ros):
    publisher = ros.node("node").create_publisher(UInt32, "count", 10)
    with pytest.raises(TypeError, match="UInt32"):
        publisher.publish(String())


def test_names_are_relative_remappable_and_shared_between_nodes(ros):
    args = ["--ros-args", "-r", "joint_states:=/robot/state"]
    sender = ros.node("sender", namespace="/arm", cli_args=args)
    receiver, got = ros.node("receiver", namespace="/robot"), []
    receiver.create_subscription(JointState, "state", got.append, 10)
    publisher = sender.create_publisher(JointState, "joint_states", 10)
    assert publisher.topic_name == "/robot/state"
    assert ros.until(matched(publisher))
    publisher.publish(JointState(name=["joint1"]))
    assert ros.until(lambda: got)


def test_nothing_is_sent_or_received_after_destroy(ros):
    node, got = ros.node("node"), []
    subscription = node.create_subscription(UInt32, "count", got.append, 10)
    publisher = node.create_publisher(UInt32, "count", 10)
    assert ros.until(matched(publisher))
    publisher.publish(UInt32())
    assert node.destroy_subscription(subscription)
    assert not node.destroy_subscription(subscription)
    assert ros.until(matched(publisher, 0))
    publisher.publish(UInt32())
    ros.until(lambda: False, timeout_s=0.1)
    assert got == []
    assert node.destroy_publisher(publisher)
    with pytest.raises(InvalidHandle):
        publisher.publish(UInt32())


def test_an_exception_in_a_callback_leaves_through_spin(ros):
    def fail(message):
        raise ZeroDivisionError("in the callback")

    node = ros.node("node")
    node.create_subscription(UInt32, "count", fail, 10)
    publisher = node.create_publisher(UInt32, "count", 10)
    assert ros.until(matched(publisher))
    publisher.publish(UInt32())
    with pytest.raises(ZeroDivisionError):
        ros.until(lambda: False)


def test_one_message_can_be_waited_for_without_spinning(ros):
    node = ros.node("node")
    publisher = node.create_publisher(UInt32, "count", 1)

    def send():
        while publisher.get_subscription_count() == 0:
            time.sleep(0.01)
        publisher.publish(UInt32(data=7))

    thread = threading.Thread(target=send)
    thread.start()
    start = time.monotonic()
    found, message = wait_for_message(UInt32, node, "count", time_to_wait=60.0)
    thread.join()
    assert found
    # It does not wait for the time to be over.
    assert time.monotonic() - start < 40.0
    assert message.data == 7
    assert wait_for_message(UInt32, node, "nothing", time_to_wait=0.05) == (False, None)
    assert ros.until(lambda: node.count_subscribers("nothing") == 0)


def test_the_callback_can_be_replaced(ros):
    node, first, second = ros.node("node"), [], []
    subscription = node.create_subscription(UInt32, "count", first.append, 10)
    publisher = node.create_publisher(UInt32, "count", 10)
    subscription.callback = lambda message, info: second.append((message, info))
    assert ros.until(matched(publisher))
    publisher.publish(UInt32())
    assert ros.until(lambda: second)
    assert first == []
    with pytest.raises(RuntimeError):
        subscription.callback = lambda: None


def test_two_contexts_of_one_process_talk_and_end_apart(ros_with):
    here, there = ros_with(), ros_with()
    node, other, got = here.node("node"), there.node("other"), []
    other.create_subscription(UInt32, "count", got.append, 10)
    publisher = node.create_publisher(UInt32, "count", 10)
    assert there.until(matched(publisher))
    publisher.publish(UInt32())
    assert there.until(lambda: got)
    here.context.shutdown()
    assert there.context.ok()
    there.node("late").create_publisher(UInt32, "count", 10).publish(UInt32())
    there.spin(0.05)
