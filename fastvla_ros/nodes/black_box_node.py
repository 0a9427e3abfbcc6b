"""The black box: keeps the last seconds before each abnormal end of a goal.

It runs in a process of its own, so that it survives what it is to explain: a policy server that
was killed cannot write a bag any more.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import Any

from action_msgs.msg import GoalStatus, GoalStatusArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from fastvla_core.errors import FastVLAError
from fastvla_core.robot.contract_file import load_contract
from fastvla_msgs.action import ExecuteTask
from fastvla_ros.black_box.goals import SERVER_GONE, End, GoalWatch
from fastvla_ros.black_box.keeper import Keeper
from fastvla_ros.black_box.ring import Recorded, Ring
from fastvla_ros.black_box.store import BagStore, Kept
from fastvla_ros.bridge.joints import stamp_ns
from fastvla_ros.diagnostics.memory import memory_status
from fastvla_ros.diagnostics.status import DiagnosticsPublisher, Status
from fastvla_ros.nodes.black_box_parameters import declare_and_read
from fastvla_ros.nodes.goal_types import GoalCode
from fastvla_ros.recording.streams import (
    ACTION,
    Stream,
    listen,
    read_message,
    robot_streams,
    serving_streams,
    task_streams,
)

REQUESTED = "REQUESTED"
"""Reason of a bag that was asked for with `~/keep`."""

_LOOK_PERIOD_S = 0.25
_STATUS_QOS = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_CLOCK_JUMP_NS = 100_000_000
# A server that is being stopped, too, still says how its goal ended.
_LAST_RESULT_S = 1.5
_LAST_BAG_S = 6.0


class BlackBoxNode(Node):
    """Listens to everything, and writes it down when a goal ends as nobody wanted.

    Parameters:
        see `black_box_parameters`.

    Raises:
        FastVLAError: the contract cannot be read, or a parameter is wrong.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("black_box", **options)
        self._parameters = declare_and_read(self)
        self._contract = load_contract(self._parameters.contract)
        self._ring = Ring(
            seconds=self._parameters.seconds,
            max_bytes=self._parameters.memory_mib << 20,
            cameras=len(self._contract.cameras),
        )
        self._store = BagStore(
            self._parameters.directory,
            keep=self._parameters.keep,
            max_bytes=self._parameters.disk_mib << 20,
        )
        self._watch = GoalWatch()
        self._instruction = self._problem = self._last = ""
        self._started_ns = self._last_ns = self.get_clock().now().nanoseconds
        self._keeper = Keeper(
            self._ring,
            self._store,
            after_s=self._parameters.after_s,
            describe=self._describe,
            listener=self,
        )
        self._listen()
        DiagnosticsPublisher(self, hardware_id=self._contract.name, collect=self._statuses)
        self.get_logger().info(
            f"the last {self._parameters.seconds:g} s before each abnormal end of a goal are kept "
            f"in {self._store.folder}"
        )

    def prepare_shutdown(self) -> None:
        """Keep what is due, also for a goal whose server is gone."""
        deadline = time.monotonic() + _LAST_RESULT_S
        while self._watch.active and time.monotonic() < deadline:
            time.sleep(0.02)
        for end in self._watch.give_up():
            self._keeper.keep(end)
        if not self._keeper.close(timeout_s=_LAST_BAG_S):
            self.get_logger().error("the last bag was not finished; its folder ends in .partial")

    def destroy_node(self) -> None:
        """Keep what is due, then leave the graph."""
        self._keeper.close(timeout_s=_LAST_BAG_S)
        super().destroy_node()

    # -- KeeperListener ------------------------------------------------------------------------

    def on_kept(self, ends: list[End], kept: Kept) -> None:
        """Say where the bag of these ends is."""
        self._problem, self._last = "", kept.folder.name
        missing = " (without pictures: the disk has no room for them)"
        where = f"{kept.folder}{missing if kept.without_pictures else ''}"
        for end in ends:
            if end.code == REQUESTED:
                self.get_logger().info(f"kept as asked for: {where}")
                continue
            self.get_logger().warning(
                f"a goal ended with {end.code} ({end.message}); what led to it is in {where}"
            )

    def on_not_kept(self, ends: list[End], error: FastVLAError) -> None:
        """Say why there is no bag; nothing else is the matter."""
        codes = ", ".join(end.code for end in ends)
        self._problem = error.message
        self.get_logger().error(f"no bag is kept ({codes}): {error}")

    # -- what comes in -------------------------------------------------------------------------

    def _listen(self) -> None:
        # One group: messages keep their order, and the ring is not fought for.
        self._inputs = MutuallyExclusiveCallbackGroup()
        streams = (
            *robot_streams(self._contract), *task_streams(), *serving_streams(self._contract)
        )  # fmt: skip
        for stream in streams:
            topic = self.resolve_topic_name(stream.topic)
            take = functools.partial(self._on_message, stream, topic)
            listen(self, stream, take, callback_group=self._inputs)
        goals = MutuallyExclusiveCallbackGroup()
        self._status = self.resolve_topic_name(f"{ACTION}/_action/status")
        self.create_subscription(
            GoalStatusArray, self._status, self._on_status, _STATUS_QOS, callback_group=goals
        )
        self._results = self.create_client(
            ExecuteTask.Impl.GetResultService, f"{ACTION}/_action/get_result", callback_group=goals
        )
        self.create_service(Trigger, "~/keep", self._on_keep, callback_group=goals)
        self.create_timer(
            _LOOK_PERIOD_S, self._look, callback_group=goals,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )  # fmt: skip

    def _on_message(self, stream: Stream, topic: str, data: bytes) -> None:
        now_ns = self.get_clock().now().nanoseconds
        if now_ns < self._last_ns - _CLOCK_JUMP_NS:
            self._ring.clear()
        self._last_ns = now_ns
        steady_ns = time.monotonic_ns()
        self._ring.add(
            Recorded(stream=stream, topic=topic, data=data, stamp_ns=now_ns, steady_ns=steady_ns)
        )
        if stream.name == "feedback":
            self._watch.on_feedback(_goal_of(data), now_ns=steady_ns)
        elif stream.name == "current_task":
            # "" says that it has ended, which is when it is asked for.
            message = read_message(data, String)
            self._instruction = (message and message.data) or self._instruction

    def _on_status(self, message: Any) -> None:
        goals = [
            (bytes(status.goal_info.goal_id.uuid).hex(), status.status)
            for status in message.status_list
            if status.status <= GoalStatus.STATUS_CANCELING
            or stamp_ns(status.goal_info.stamp) >= self._started_ns
        ]
        new, ends = self._watch.on_status(goals, now_ns=time.monotonic_ns())
        for goal in new:
            self._ask_result(goal)
        self._keep(ends)

    def _ask_result(self, goal: str) -> None:
        request = ExecuteTask.Impl.GetResultService.Request()
        request.goal_id.uuid = list(bytes.fromhex(goal))
        future = self._results.call_async(request)
        future.add_done_callback(functools.partial(self._on_result, goal))

    def _on_result(self, goal: str, future: Any) -> None:
        response = future.result()
        names = {int(code): code.name for code in GoalCode}
        code = names.get(response.result.error_code, f"CODE_{response.result.error_code}")
        message = response.result.error_msg
        if response.status == GoalStatus.STATUS_UNKNOWN:
            code, message = SERVER_GONE, "the policy server was started anew"
        self._keep(self._watch.on_result(goal, code=code, message=message))

    def _look(self) -> None:
        there = self.count_publishers(self._status) > 0
        self._keep(self._watch.look(now_ns=time.monotonic_ns(), server_there=there))

    def _on_keep(self, _request: Any, response: Any) -> Any:
        self._keeper.keep(End(goal="", code=REQUESTED, message="~/keep was called"))
        response.success = True
        response.message = f"the last {self._parameters.seconds:g} s go to {self._store.folder}"
        return response

    def _statuses(self) -> list[Status]:
        message = f"the last one is {self._last}" if self._last else "nothing to keep so far"
        status = Status(
            name="bags",
            level="ERROR" if self._problem else "OK",
            message=self._problem or message,
            values={
                "directory": str(self._store.folder),
                "bags": len(self._store.bags()),
                "memory_mib": self._ring.size / (1 << 20),
                **{f"{name}.left_out": count for name, count in self._ring.left_out.items()},
            },
        )
        return [status, memory_status()]

    def _keep(self, ends: list[End]) -> None:
        for end in ends:
            self._keeper.keep(end)

    def _describe(self) -> Mapping[str, str]:
        contract = self._contract
        return {
            "fastvla.instruction": self._instruction,
            "fastvla.contract": json.dumps(contract.to_dict(), separators=(",", ":")),
            "fastvla.contract_hash": contract.hash(),
        }


def _goal_of(feedback: bytes) -> str:
    """The goal's id, with which every feedback begins after the four bytes of its header."""
    return feedback[4:20].hex()
