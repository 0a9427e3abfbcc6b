"""Joint states and times: from message fields to the contract's order and to nanoseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.joints import decode_joint_state


def joint_state_to_state(message: Any, *, contract: RobotContract) -> NDArray[np.float32]:
    """A `sensor_msgs/JointState` as float32 [S] in the contract's order, matched by name.

    Raises:
        MessageError: no names, a name missing or twice, a position that is not finite.
    """
    return decode_joint_state(contract, names=message.name, positions=message.position)


def to_time(stamp_ns: int) -> Any:
    """Nanoseconds as `builtin_interfaces/Time`."""
    from builtin_interfaces.msg import Time

    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def stamp_ns(stamp: Any) -> int:
    """A `builtin_interfaces/Time` in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
