"""Clocks, durations, simulated time."""

from __future__ import annotations

import threading
import time

import pytest
from builtin_interfaces.msg import Time as TimeMsg
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, ROSClock
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMsg

SIM = [Parameter("use_sim_time", value=True)]


class Simulator:
    """Publishes /clock and spins until the node's clock shows it."""

    def __init__(self, ros, node):
        self._ros, self._node = ros, node
        self._publisher = ros.node("simulator").create_publisher(
            ClockMsg, "/clock", qos_profile_sensor_data
        )
        assert ros.until(lambda: self._publisher.get_subscription_count() == 1)

    def set(self, seconds):
        target = Time(seconds=seconds, clock_type=ClockType.ROS_TIME)
        self._publisher.publish(ClockMsg(clock=target.to_msg()))
        assert self._ros.until(lambda: self._node.get_clock().now() == target)
        # What became due runs before the next step.
        for _ in range(3):
            self._ros.executor.spin_once(timeout_sec=0)


def test_without_simulated_time_a_nodes_clock_is_the_systems(ros):
    now_s = ros.node("node").get_clock().now().nanoseconds / 1e9
    assert abs(now_s - time.time()) < 1.0


def test_simulated_time_starts_at_zero_and_follows_the_clock_topic(ros):
    node = ros.node("node", parameter_overrides=SIM)
    assert node.get_clock().now().nanoseconds == 0
    assert node.get_clock().ros_time_is_active
    simulator = Simulator(ros, node)
    simulator.set(5.5)
    assert node.get_clock().now().to_msg() == TimeMsg(sec=5, nanosec=500_000_000)


def test_simulated_time_can_be_switched_by_the_parameter(ros):
    node = ros.node("node")
    node.set_parameters([Parameter("use_sim_time", value=True)])
    Simulator(ros, node).set(3.0)
    node.set_parameters([Parameter("use_sim_time", value=False)])
    assert node.get_clock().now().nanoseconds > 1e18
    refused = node.set_parameters([Parameter("use_sim_time", value=1)])[0]
    assert not refused.successful


def test_timers_follow_simulated_time(ros):
    node, ticks = ros.node("node", parameter_overrides=SIM), []
    node.create_timer(1.0, lambda: ticks.append(node.get_clock().now().nanoseconds / 1e9))
    simulator = Simulator(ros, node)
    for tenth in range(1, 36):
        simulator.set(tenth / 10)
    ros.until(lambda: False, timeout_s=0.05)
    assert ticks == [1.0, 2.0, 3.0]


def test_a_backward_jump_is_told_and_timers_start_anew(ros):
    node, jumps, ticks = ros.node("node", parameter_overrides=SIM), [], []
    simulator = Simulator(ros, node)
    simulator.set(100.0)
    node.create_timer(1.0, lambda: ticks.append(1))
    handle = node.get_clock().create_jump_callback(
        JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
        post_callback=jumps.append,
    )
    simulator.set(101.5)
    assert ros.until(lambda: ticks)
    assert jumps == []
    simulator.set(10.0)
    assert [jump.delta.nanoseconds for jump in jumps] == [-91_500_000_000]
    simulator.set(11.1)
    assert ros.until(lambda: len(ticks) == 2)
    handle.unregister()
    simulator.set(1.0)
    assert len(jumps) == 1


def test_sleeping_on_simulated_time_ends_when_it_comes(ros):
    node, woken = ros.node("node", parameter_overrides=SIM), []
    simulator = Simulator(ros, node)
    simulator.set(1.0)

    def sleep():
        clock = node.get_clock()
        woken.append(clock.sleep_for(Duration(seconds=2), ros.context))

    thread = threading.Thread(target=sleep)
    thread.start()
    simulator.set(2.0)
    time.sleep(0.05)
    assert woken == []
    simulator.set(3.5)
    thread.join(5.0)
    assert woken == [True]


def test_sleeping_ends_at_shutdown(ros):
    woken = []
    clock = Clock(clock_type=ClockType.STEADY_TIME)
    thread = threading.Thread(
        target=lambda: woken.append(clock.sleep_for(Duration(seconds=60), ros.context))
    )
    thread.start()
    time.sleep(0.05)
    ros.context.try_shutdown()
    thread.join(5.0)
    assert woken == [False]


def test_times_and_durations_calculate():
    start = Time(seconds=1, nanoseconds=500)
    assert start + Duration(seconds=2) == Time(seconds=3, nanoseconds=500)
    assert start - Duration(nanoseconds=500) == Time(seconds=1)
    assert Time(seconds=3) - start == Duration(seconds=2, nanoseconds=-500)
    assert start < Time(seconds=2)
    assert start.seconds_nanoseconds() == (1, 500)
    assert Time.from_msg(start.to_msg(), ClockType.SYSTEM_TIME) == start
    negative = Duration(nanoseconds=-1).to_msg()
    assert (negative.sec, negative.nanosec) == (-1, 999_999_999)
    assert Duration.from_msg(negative) == Duration(nanoseconds=-1)


def test_times_of_different_clocks_do_not_mix():
    ros_time = Time(seconds=1, clock_type=ClockType.ROS_TIME)
    with pytest.raises(TypeError):
        _ = ros_time - Time(seconds=1)
    with pytest.raises(TypeError):
        _ = ros_time < Time(seconds=1)
    with pytest.raises(ValueError, match="negative"):
        Time(seconds=-1)


def test_a_ros_clock_can_be_made_either_way():
    assert isinstance(Clock(clock_type=ClockType.ROS_TIME), ROSClock)
    assert ROSClock().clock_type is ClockType.ROS_TIME


def test_switching_simulated_time_is_a_jump(ros):
    node, jumps = ros.node("node"), []
    handle = node.get_clock().create_jump_callback(
        JumpThreshold(min_forward=None, min_backward=None, on_clock_change=True),
        pre_callback=lambda: jumps.append("before"),
        post_callback=lambda jump: jumps.append(ClockChange(int(jump.clock_change)).name),
    )
    node.set_parameters([Parameter("use_sim_time", value=True)])
    assert jumps == ["before", "ROS_TIME_ACTIVATED"]
    node.set_parameters([Parameter("use_sim_time", value=False)])
    assert jumps[2:] == ["before", "ROS_TIME_DEACTIVATED"]
    handle.unregister()


def test_a_threshold_needs_something_to_hear():
    with pytest.raises(ValueError, match="threshold"):
        JumpThreshold(min_forward=None, min_backward=None, on_clock_change=False)
    with pytest.raises(ValueError, match="min_backward"):
        JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=1))
    clock, everything = Clock(), JumpThreshold(min_forward=None, min_backward=None)
    with pytest.raises(ValueError, match="callable"):
        clock.create_jump_callback(everything)
