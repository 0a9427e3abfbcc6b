"""What nodes can ask about the graph, also over two participants."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String, UInt32
from std_srvs.srv import Trigger


@pytest.fixture
def far(ros):
    """A node of another participant, as another process would have it."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = Node("far", namespace="/ns", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def test_nodes_are_seen_with_their_namespaces(ros, far):
    near = ros.node("near")
    assert near.wait_for_node("/ns/far", timeout=5.0)
    assert ("far", "/ns") in near.get_node_names_and_namespaces()
    assert set(near.get_fully_qualified_node_names()) == {"/near", "/ns/far"}
    assert far.wait_for_node("/near", timeout=5.0)
    assert not near.wait_for_node("/nobody", timeout=0.05)


def test_a_node_that_goes_is_forgotten(ros, far):
    near = ros.node("near")
    assert near.wait_for_node("/ns/far", timeout=5.0)
    far.destroy_node()
    assert ros.until(lambda: "far" not in near.get_node_names())


def test_topics_services_and_their_owners_are_seen(ros, far):
    near = ros.node("near")
    far.create_publisher(UInt32, "count", 10)
    far.create_service(Trigger, "~/go", lambda q, r: r)
    far.create_client(Trigger, "/other")
    assert near.wait_for_node("/ns/far", timeout=5.0)
    expected = ("/ns/count", ["std_msgs/msg/UInt32"])
    assert ros.until(lambda: expected in near.get_topic_names_and_types())
    service = ("/ns/far/go", ["std_srvs/srv/Trigger"])
    client = ("/other", ["std_srvs/srv/Trigger"])
    assert ros.until(lambda: service in near.get_service_names_and_types())
    owner = ("far", "/ns")
    assert ros.until(lambda: client in near.get_client_names_and_types_by_node(*owner))
    assert expected in near.get_publisher_names_and_types_by_node(*owner)
    assert service in near.get_service_names_and_types_by_node(*owner)
    assert near.get_subscriber_names_and_types_by_node("near", "/") == []
    assert ("rt/ns/count", ["std_msgs::msg::dds_::UInt32_"]) in (
        near.get_topic_names_and_types(no_demangle=True)
    )


def test_endpoints_are_counted_and_described(ros, far):
    near = ros.node("near")
    qos = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    far.create_publisher(String, "/mode", qos)
    near.create_subscription(String, "/mode", lambda m: None, 1)
    near.create_client(Trigger, "/go")
    far.create_service(Trigger, "/go", lambda q, r: r)
    assert ros.until(lambda: near.count_publishers("/mode") == 1)
    assert near.count_subscribers("mode") == 1
    assert ros.until(lambda: near.count_services("/go") == 1)
    assert near.count_clients("/go") == 1
    assert ros.until(lambda: near.get_publishers_info_by_topic("/mode")[0].node_name == "far")
    info = near.get_publishers_info_by_topic("/mode")[0]
    assert info.topic_type == "std_msgs/msg/String"
    assert info.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert near.get_subscriptions_info_by_topic("/mode")[0].node_name == "near"


def test_participants_of_one_process_talk(ros, far):
    near, got = ros.node("near"), []
    near.create_subscription(String, "/mode", got.append, 10)
    publisher = far.create_publisher(String, "/mode", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="x"))
    assert ros.until(lambda: got)
