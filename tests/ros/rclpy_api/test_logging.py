"""Loggers: to stderr and to /rosout."""

from __future__ import annotations

import pytest
import rclpy
import rclpy.logging
from rcl_interfaces.msg import Log
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
    node = ros.node("quiet", enable_rosout=False)
    assert all(publisher.topic_name != "/rosout" for publisher in node.publishers)


@pytest.mark.parametrize("option", ["debug", "talky:=debug"])
def test_a_nodes_arguments_set_its_own_level_while_it_lives(ros, option):
    node = ros.node("talky", cli_args=["--ros-args", "--log-level", option])
    assert node.get_logger().get_effective_level() is LoggingSeverity.DEBUG
    assert get_logger("other").get_effective_level() is LoggingSeverity.INFO
    node.destroy_node()
    assert get_logger("talky").get_effective_level() is LoggingSeverity.INFO


def test_the_processs_arguments_set_the_level_of_all_until_the_next_start():
    args = ["--ros-args", "--log-level", "error", "--log-level", "calm:=fatal"]
    for given, expected in ((args, LoggingSeverity.ERROR), ([], LoggingSeverity.INFO)):
        with rclpy.init(args=given):
            assert get_logger("any").get_effective_level() is expected


def test_unknown_levels_are_refused():
    with pytest.raises(RuntimeError, match="loud"):
        rclpy.logging.get_logging_severity_from_string("loud")
