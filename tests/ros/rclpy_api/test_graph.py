"""What nodes can ask about the graph, also over two participants."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
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
    assert {"/near", "/ns/far"} <= set(near.get_fully_qualified_node_names())
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
    assert ros.until(lambda: near.count_subscribers("mode") == 1)
    assert ros.until(lambda: near.count_services("/go") == 1)
    assert ros.until(lambda: near.count_clients("/go") == 1)
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


def test_a_node_that_is_not_there_has_no_topics(ros):
    near = ros.node("near")
    for ask in (
        near.get_publisher_names_and_types_by_node,
        near.get_subscriber_names_and_types_by_node,
        near.get_service_names_and_types_by_node,
        near.get_client_names_and_types_by_node,
    ):
        with pytest.raises(NodeNameNonExistentError):
            ask("nobody", "/")


def test_endpoints_say_their_gid_and_the_hash_of_their_type(ros):
    node = ros.node("node")
    node.create_publisher(String, "said", 3)
    node.create_subscription(String, "said", lambda m: None, 3)
    assert ros.until(lambda: node.count_publishers("said") == node.count_subscribers("said") == 1)
    (publisher,) = node.get_publishers_info_by_topic("said")
    (subscription,) = node.get_subscriptions_info_by_topic("said")
    assert len(publisher.endpoint_gid) == 16
    assert publisher.endpoint_gid != subscription.endpoint_gid
    assert publisher.endpoint_gid[:12] == subscription.endpoint_gid[:12]
    assert str(publisher.topic_type_hash) == (
        "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
    )
    text = str(publisher)
    assert "Node name: node" in text
    assert "Endpoint type: PUBLISHER" in text
    assert "Deadline: Infinite" in text


def test_qos_of_endpoints_is_told_whole(ros):
    node = ros.node("node")
    qos = QoSProfile(
        depth=1,
        deadline=Duration(seconds=2),
        lifespan=Duration(seconds=3),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=4),
    )
    node.create_publisher(String, "said", qos)
    assert ros.until(lambda: node.count_publishers("said") == 1)
    told = node.get_publishers_info_by_topic("said")[0].qos_profile
    assert told.reliability is ReliabilityPolicy.RELIABLE
    assert told.deadline == Duration(seconds=2)
    assert told.lifespan == Duration(seconds=3)
    assert told.liveliness is LivelinessPolicy.MANUAL_BY_TOPIC
    assert told.liveliness_lease_duration == Duration(seconds=4)


def test_counting_does_not_remap_but_asking_for_infos_does(ros):
    node = ros.node("node", cli_args=["--ros-args", "-r", "said:=spoken"])
    node.create_publisher(String, "said", 3)
    assert ros.until(lambda: node.count_publishers("spoken") == 1)
    assert node.count_publishers("said") == 0
    assert len(node.get_publishers_info_by_topic("said")) == 1


def test_two_nodes_of_one_name_are_reported(ros, capfd):
    ros.node("twin", namespace="/arm")
    ros.node("twin", namespace="/other")
    assert "WARN" not in capfd.readouterr().err
    ros.node("twin", namespace="/arm")
    text = capfd.readouterr().err
    assert "WARN" in text
    assert "twin" in text
