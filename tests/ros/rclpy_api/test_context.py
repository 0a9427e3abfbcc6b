"""Start and end: contexts and domains."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.exceptions import NotInitializedException
from rclpy.node import Node
from rclpy.utilities import get_default_context
from std_msgs.msg import String

from fastvla_ros.demo.domain import reserve_domain


def test_the_default_context_can_be_used_again_and_again():
    for _ in range(2):
        assert not rclpy.ok()
        rclpy.init(args=[])
        node = rclpy.create_node("node")
        rclpy.spin_once(node, timeout_sec=0.01)
        assert rclpy.ok()
        node.destroy_node()
        rclpy.shutdown()
    with pytest.raises(RuntimeError):
        rclpy.shutdown()
    rclpy.try_shutdown()


def test_nodes_need_init():
    with pytest.raises(NotInitializedException):
        Node("node")


def test_init_is_called_once():
    rclpy.init(args=[])
    with pytest.raises(RuntimeError, match="once"):
        rclpy.init(args=[])
    assert get_default_context().ok()
    rclpy.shutdown()
    assert not rclpy.ok()


def test_publishing_after_shutdown_raises_and_nodes_can_still_be_destroyed(ros):
    from rclpy._rclpy_pybind11 import RCLError

    node = ros.node("node")
    publisher = node.create_publisher(String, "x", 1)
    called = []
    ros.context.on_shutdown(lambda: called.append(1))
    ros.context.shutdown()
    assert called == [1]
    with pytest.raises(RCLError, match="context is invalid"):
        publisher.publish(String())
    node.get_logger().info("after the end")
    node.destroy_node()


def test_two_domains_do_not_hear_each_other(ros):
    other = rclpy.Context()
    with reserve_domain() as elsewhere:
        rclpy.init(args=[], context=other, domain_id=elsewhere)
        far = Node("far", context=other)
        near = ros.node("near")
        assert other.get_domain_id() == elsewhere
        assert not near.wait_for_node("/far", timeout=0.3)
        far.destroy_node()
        other.shutdown()


def test_shutdown_callbacks_are_called_once_and_late_ones_at_once():
    context, called = rclpy.Context(), []
    context.on_shutdown(lambda: called.append("before init"))
    rclpy.init(args=[], context=context)
    context.on_shutdown(lambda: called.append("running"))
    with pytest.raises(TypeError):
        context.on_shutdown("text")
    context.shutdown()
    context.try_shutdown()
    assert sorted(called) == ["before init", "running"]
    context.on_shutdown(lambda: called.append("late"))
    assert called[-1] == "late"
