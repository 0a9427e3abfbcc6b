"""Feeds a node's clock from /clock while its parameter `use_sim_time` is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rosgraph_msgs.msg import Clock as ClockMsg

from fastvla_ros.embedded.rcl.clock import ROSClock
from fastvla_ros.embedded.rcl.parameter import Parameter
from fastvla_ros.embedded.rcl.qos import QoSProfile, ReliabilityPolicy
from fastvla_ros.embedded.rcl.time import Time

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

USE_SIM_TIME = "use_sim_time"


class TimeSource:
    """Subscribes to /clock when asked to; the executor delivers the time."""

    def __init__(self, node: Node, clock: ROSClock) -> None:
        self._node = node
        self._clock = clock
        self._subscription: Any = None
        if not node.has_parameter(USE_SIM_TIME):
            node.declare_parameter(USE_SIM_TIME, False)
        self._follow(node.get_parameter(USE_SIM_TIME).value)
        node.add_on_set_parameters_callback(self._on_parameters)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME:
                if parameter.type_ is not Parameter.Type.BOOL:
                    reason = f"{USE_SIM_TIME} parameter must be boolean"
                    return SetParametersResult(successful=False, reason=reason)
                self._follow(parameter.value)
        return SetParametersResult(successful=True)

    def _follow(self, enabled: bool) -> None:
        self._clock._set_ros_time_is_active(enabled)
        if enabled and self._subscription is None:
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscription = self._node.create_subscription(
                ClockMsg, "/clock", self._on_clock, qos
            )
        elif not enabled and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_clock(self, message: Any) -> None:
        self._clock.set_ros_time_override(Time.from_msg(message.clock))
