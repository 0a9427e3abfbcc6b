"""These tests name nothing but rclpy and messages, so they hold for both runtimes."""

from tests.ros.ros_session import domain_id, ros, ros_with, start

__all__ = ["domain_id", "ros", "ros_with", "start"]
