"""The simulated gripper's action server: moves, then says whether it arrived or stalled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from fastvla_core.robot.contract import GripperSpec

_ARRIVED_M = 0.001
_AT_REST_M_S = 0.003
_POLL_S = 0.01
_REST_S = 0.1
_GIVE_UP_S = 5.0
# rclpy keeps each goal for a quarter of an hour, and lists all of them with every change of one.
_RESULT_KEPT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperState:
    """Opening of one finger [m] and its velocity [m/s]."""

    position: float
    velocity: float


class GripperServer:
    """Serves the contract's gripper action; a new goal takes over from the one before.

    Args:
        move: Starts the gripper moving to a position [m].
        measured: The gripper as it is now.
    """

    def __init__(
        self,
        node: Node,
        spec: GripperSpec,
        *,
        move: Callable[[float], None],
        measured: Callable[[], GripperState],
    ) -> None:
        self._spec, self._move, self._measured = spec, move, measured
        self._messages = _interface(spec)
        self._lock = threading.Lock()
        self._latest = 0
        self._server = ActionServer(
            node,
            self._messages.action,
            spec.action,
            execute_callback=self._execute,
            goal_callback=self._accept,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=_RESULT_KEPT_S,
        )

    def interrupt(self) -> None:
        """End the running goal."""
        with self._lock:
            self._latest += 1

    def destroy(self) -> None:
        """End the running goal and take the server off the graph."""
        self.interrupt()
        self._server.destroy()

    def _accept(self, goal: Any) -> GoalResponse:
        position = self._messages.wanted(goal)
        known = position is not None and self._spec.lower <= position <= self._spec.upper
        return GoalResponse.ACCEPT if known else GoalResponse.REJECT

    def _execute(self, goal_handle: Any) -> Any:
        wanted = self._messages.wanted(goal_handle.request)
        assert wanted is not None, "such goals are rejected"
        with self._lock:
            self._latest += 1
            mine = self._latest
            self._move(wanted)
        begin = at_rest_since = time.monotonic()
        while True:
            now, state = time.monotonic(), self._measured()
            if abs(state.velocity) > _AT_REST_M_S:
                at_rest_since = now
            arrived = abs(state.position - wanted) < _ARRIVED_M
            stalled = not arrived and now - at_rest_since > _REST_S
            if goal_handle.is_cancel_requested:
                self._move(state.position)
                goal_handle.canceled()
            elif mine != self._latest or now - begin > _GIVE_UP_S:
                goal_handle.abort()
            elif arrived or stalled:
                goal_handle.succeed()
            else:
                time.sleep(_POLL_S)
                continue
            return self._messages.result(state, arrived=arrived, stalled=stalled)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    action: Any
    wanted: Callable[[Any], float | None]
    result: Callable[..., Any]


def _interface(spec: GripperSpec) -> _Interface:
    if spec.interface == "gripper_command":
        from control_msgs.action import GripperCommand

        def plain_result(state: GripperState, *, arrived: bool, stalled: bool) -> Any:
            return GripperCommand.Result(
                position=state.position, effort=0.0, stalled=stalled, reached_goal=arrived
            )

        return _Interface(
            action=GripperCommand,
            wanted=lambda goal: float(goal.command.position),
            result=plain_result,
        )
    from control_msgs.action import ParallelGripperCommand
    from sensor_msgs.msg import JointState

    def joint_result(state: GripperState, *, arrived: bool, stalled: bool) -> Any:
        joint = JointState(name=[spec.name], position=[state.position], velocity=[state.velocity])
        return ParallelGripperCommand.Result(state=joint, stalled=stalled, reached_goal=arrived)

    return _Interface(
        action=ParallelGripperCommand,
        wanted=lambda goal: float(goal.command.position[0]) if goal.command.position else None,
        result=joint_result,
    )
