"""`ForwardPositionCommand` as `std_msgs/Float64MultiArray`, for forward_command_controller."""

from __future__ import annotations

import array

from std_msgs.msg import Float64MultiArray

from fastvla_core.types import ForwardPositionCommand


def to_message(command: ForwardPositionCommand) -> Float64MultiArray:
    """Bare positions in the controller's joint order; the message has no place for a stamp."""
    return Float64MultiArray(data=array.array("d", command.positions.tolist()))
