"""What names may look like, and which exception says so."""

from __future__ import annotations

import pytest
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.topic_or_service_is_hidden import topic_or_service_is_hidden
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from rclpy.validate_parameter_name import validate_parameter_name
from rclpy.validate_topic_name import validate_topic_name
from std_msgs.msg import String
from std_srvs.srv import Trigger


@pytest.mark.parametrize("name", ["chatter", "~/x", "~", "/a/b", "a_1/b", "{node}/x", "_hidden"])
def test_good_topic_names(name):
    assert validate_topic_name(name)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("", 0),
        ("a b", 1),
        ("1a", 0),
        ("a/1b", 2),
        ("a/", 1),
        ("a~", 1),
        ("a-b", 1),
        ("{node", 0),
    ],
)
def test_bad_topic_names_are_refused_with_the_place(name, index):
    with pytest.raises(InvalidTopicNameException) as caught:
        validate_topic_name(name)
    # The last line of the message points at the place.
    assert str(caught.value).splitlines()[-1] == f"   {' ' * index}^"
    assert f"'{name}'" in str(caught.value)
    with pytest.raises(InvalidServiceNameException):
        validate_topic_name(name, is_service=True)


@pytest.mark.parametrize("name", ["", "a", "/a/", "/a//b", "/1", "/a b", "/~/x", "/" + "a" * 250])
def test_bad_full_names_are_refused(name):
    with pytest.raises(InvalidTopicNameException):
        validate_full_topic_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "1a", "a b", "a-b", "a" * 256])
def test_bad_node_names_are_refused(ros, name):
    with pytest.raises(InvalidNodeNameException):
        validate_node_name(name)
    with pytest.raises(InvalidNodeNameException):
        ros.node(name)


@pytest.mark.parametrize("namespace", ["/arm//x", "/1", "/a b", "/arm/", "/~"])
def test_bad_namespaces_are_refused(ros, namespace):
    with pytest.raises(InvalidNamespaceException):
        validate_namespace(namespace)
    with pytest.raises(InvalidNamespaceException):
        ros.node("node", namespace=namespace)


def test_a_namespace_may_be_relative_or_empty(ros):
    assert ros.node("node", namespace="arm").get_namespace() == "/arm"
    assert ros.node("node", namespace="").get_namespace() == "/"
    with pytest.raises(InvalidNamespaceException):
        validate_namespace("arm")


@pytest.mark.parametrize("name", ["", "a b", "1a", "a//b", "a/", "a-b"])
def test_entities_refuse_bad_names(ros, name):
    node = ros.node("node")
    with pytest.raises(InvalidTopicNameException):
        node.create_publisher(String, name, 1)
    with pytest.raises(InvalidTopicNameException):
        node.create_subscription(String, name, lambda m: None, 1)
    with pytest.raises(InvalidServiceNameException):
        node.create_client(Trigger, name)
    with pytest.raises(InvalidServiceNameException):
        node.create_service(Trigger, name, lambda q, r: r)


def test_parameters_need_a_name(ros):
    with pytest.raises(InvalidParameterException):
        ros.node("node").declare_parameter("", 1)
    assert validate_parameter_name("a.b")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("command", "/arm/command"),
        ("/command", "/command"),
        ("~/stop", "/arm/server/stop"),
        ("~", "/arm/server"),
        ("{node}/x", "/arm/server/x"),
        ("{ns}/x", "/arm/x"),
        ("a/b", "/arm/a/b"),
    ],
)
def test_names_expand_relative_to_the_node(name, full):
    assert expand_topic_name(name, "server", "/arm") == full


def test_names_with_an_underscore_in_front_are_hidden():
    assert topic_or_service_is_hidden("/a/_action/status")
    assert not topic_or_service_is_hidden("/a/b_c")


def test_a_depth_or_a_profile_is_needed(ros):
    node = ros.node("node")
    with pytest.raises(TypeError):
        node.create_publisher(String, "x", "ten")
    with pytest.raises(ValueError, match="depth"):
        node.create_publisher(String, "x", -1)
