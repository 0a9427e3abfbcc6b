"""The clocks there are."""

from enum import IntEnum


class ClockType(IntEnum):
    """Numbers as in rcl; ROS_TIME follows /clock when a node uses simulated time."""

    UNINITIALIZED = 0
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3
