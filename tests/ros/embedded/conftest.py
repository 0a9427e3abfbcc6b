"""Inside the embedded runtime: where ROS 2 is sourced, there is nothing to test."""

from tests.ros.ros_session import REAL_ROS, domain_id, ros, ros_with, start

__all__ = ["domain_id", "ros", "ros_with", "start"]

collect_ignore_glob = ["*"] if REAL_ROS else []
