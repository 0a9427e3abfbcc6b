"""`TwistCommand` and `geometry_msgs/TwistStamped`, as MoveIt Servo takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped

from fastvla_core.errors import CommandError
from fastvla_core.types import TwistCommand
from fastvla_ros.bridge.joints import stamp_ns, to_time


def to_message(command: TwistCommand) -> TwistStamped:
    """The tool's twist, whose axes the header's frame names.

    Servo drops a message whose stamp is older than its timeout.
    """
    message = TwistStamped()
    message.header.stamp = to_time(command.stamp_ns)
    message.header.frame_id = command.frame
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z = command.linear.tolist()
    angular.x, angular.y, angular.z = command.angular.tolist()
    return message


def from_message(message: Any) -> TwistCommand:
    """Read a message.

    Raises:
        CommandError: a value is not finite.
    """
    linear, angular = (
        np.array([part.x, part.y, part.z], np.float64)
        for part in (message.twist.linear, message.twist.angular)
    )
    if not (np.isfinite(linear).all() and np.isfinite(angular).all()):
        raise CommandError(f"twist {linear.tolist()} {angular.tolist()} is not finite")
    return TwistCommand(
        stamp_ns=stamp_ns(message.header.stamp),
        frame=message.header.frame_id,
        linear=linear,
        angular=angular,
    )
