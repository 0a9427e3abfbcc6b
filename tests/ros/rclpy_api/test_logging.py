"""Loggers: to stderr and to /rosout."""

from __future__ import annotations

import pytest
import rclpy
import rclpy.logging
from rcl_interfaces.msg import Log, LoggerLevel
from rcl_interfaces.srv import GetLoggerLevels, SetLoggerLevels
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.qos import DurabilityPolicy, QoSProfile


def test_messages_go_to_stderr_with_severity_and_name(capfd):
    logger = get_logger("fastvla.test")
    logger.info("hello")
    logger.warning("careful")
    logger.get_child("child").error("broken")
    text = capfd.readouterr().err
    assert "[INFO] [" in text
    assert "[fastvla.test]: hello" in text
    assert "[WARN]" in text
    assert "[fastvla.test.child]: broken" in text


def test_levels_are_inherited(capfd):
    logger = get_logger("fastvla.levels")
    child = logger.get_child("child")
    assert not child.debug("no")
    logger.set_level(LoggingSeverity.DEBUG)
    assert child.is_enabled_for(LoggingSeverity.DEBUG)
    assert child.debug("yes")
    child.set_level(LoggingSeverity.ERROR)
    assert not child.warning("no")
    assert logger.get_effective_level() is LoggingSeverity.DEBUG
    assert "no" not in capfd.readouterr().err


def test_one_line_of_code_can_be_throttled_skipped_or_said_once():
    logger = get_logger("fastvla.throttle")
    throttled = [logger.info("x", throttle_duration_sec=60.0) for _ in range(3)]
    once = [logger.info("x", once=True) for _ in range(3)]
    skipping = [logger.info("x", skip_first=True) for _ in range(3)]
    assert throttled == [True, False, False]
    assert once == [True, False, False]
    assert skipping == [False, True, True]


def test_a_nodes_messages_go_to_rosout_for_late_listeners_too(ros):
    node, got = ros.node("node", namespace="/arm"), []
    node.get_logger().warn("before")
    listener = ros.node("listener")
    qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(Log, "/rosout", got.append, qos)
    assert ros.until(lambda: got)
    assert (got[0].name, got[0].msg, got[0].level) == ("arm.node", "before", 30)
    assert got[0].file.endswith("test_logging.py")
    assert got[0].stamp.sec > 0


def test_rosout_can_be_switched_off(ros):
    quiet, got = ros.node("quiet", enable_rosout=False), []
    loud = ros.node("loud")
    loud.create_subscription(Log, "/rosout", got.append, 10)
    assert ros.until(lambda: next(loud.subscriptions).get_publisher_count() >= 1)
    quiet.get_logger().warning("nobody hears this")
    loud.get_logger().warning("everybody hears this")
    assert ros.until(lambda: any(log.name == "loud" for log in got))
    assert all(log.name != "quiet" for log in got)


def test_unknown_levels_are_refused():
    with pytest.raises(RuntimeError):
        rclpy.logging.get_logging_severity_from_string("loud")


def test_children_of_a_nodes_logger_go_to_rosout_with_their_level(ros):
    node, got = ros.node("parent"), []
    node.create_subscription(Log, "/rosout", got.append, 10)
    assert ros.until(lambda: next(node.subscriptions).get_publisher_count() >= 1)
    logger = node.get_logger()
    logger.debug("not this")
    logger.info("this")
    logger.error("this")
    logger.fatal("this")
    assert ros.until(lambda: len([g for g in got if g.name == "parent"]) == 3)
    assert [g.level for g in got if g.name == "parent"] == [20, 40, 50]


def test_others_can_see_and_set_log_levels(ros):
    ros.node("talker", enable_logger_service=True)
    other = ros.node("other")

    def call(srv, name, **fields):
        client = other.create_client(srv, f"/talker/{name}")
        assert client.wait_for_service(timeout_sec=10.0)
        return ros.result(client.call_async(srv.Request(**fields)))

    levels = [LoggerLevel(name="fastvla.served", level=40), LoggerLevel(name="x", level=41)]
    results = call(SetLoggerLevels, "set_logger_levels", levels=levels).results
    assert [result.successful for result in results] == [True, False]
    got = call(GetLoggerLevels, "get_logger_levels", names=["fastvla.served"]).levels
    assert [(level.name, level.level) for level in got] == [("fastvla.served", 40)]
    assert get_logger("fastvla.served").get_effective_level() is LoggingSeverity.ERROR
