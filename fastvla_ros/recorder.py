"""Listens to a running robot and hands what it hears, serialised, to whoever writes it down."""

from __future__ import annotations

import functools
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from fastvla_core.errors import RosError
from fastvla_core.robot.contract import RobotContract
from fastvla_ros.bridge.joints import stamp_ns
from fastvla_ros.runtime import ensure_ros

if TYPE_CHECKING:
    from rclpy.node import Node

WAIT_S = 10.0
"""How long the robot's required streams may take to appear."""

_POLL_S = 0.1
# Small and frequent: a hiccup of the disk must not cost a sample.
_DEPTH = 100


class EpisodeSink(Protocol):
    """Where the messages go: a bag writer."""

    def write(self, topic: str, *, type_name: str, message: Any, stamp_ns: int) -> None:
        """Take one message, as CDR bytes, with its time of receipt."""
        ...


def record_live(
    sink: EpisodeSink,
    *,
    contract: RobotContract,
    duration_s: float | None = None,
    namespace: str = "",
    use_sim_time: bool = False,
    domain_id: int | None = None,
) -> str:
    """Record until the task's outcome, Ctrl-C or `duration_s`; returns the outcome.

    Args:
        namespace: Of the robot's topics.
        use_sim_time: Take the time of receipt from `/clock`.

    Returns:
        `success`, `failure`, or `unknown` when nobody judged the task.

    Raises:
        RosError: a camera or the joint states published nothing for `WAIT_S`.
    """
    ensure_ros()
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from fastvla_ros.bringup_spin import SharedProcess

    with SharedProcess(domain_id=domain_id) as process:
        node = Node(
            "recorder",
            namespace=namespace or None,
            use_global_arguments=False,
            parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
        )
        # Subscribed before it is spun, so that no callback finds half a recorder.
        recorder = LiveRecorder(node, sink=sink, contract=contract)
        process.add(node)
        started = time.monotonic()
        try:
            while not recorder.ended.wait(_POLL_S):
                elapsed_s = time.monotonic() - started
                if process.failure is not None:
                    raise process.failure
                if elapsed_s > WAIT_S:
                    recorder.check_streams(elapsed_s)
                if duration_s is not None and elapsed_s >= duration_s:
                    break
                recorder.show(elapsed_s)
        except KeyboardInterrupt:
            pass
        finally:
            recorder.close()
        recorder.check_streams(time.monotonic() - started)
        return recorder.outcome


class LiveRecorder:
    """Subscribes to everything that the contract names, without decoding pictures.

    Attributes:
        ended: Set when somebody judged the task.
        outcome: `success`, `failure` or `unknown`.
        counts: Stream to number of messages.
    """

    def __init__(self, node: Node, *, sink: EpisodeSink, contract: RobotContract) -> None:
        self.ended = threading.Event()
        self.outcome = "unknown"
        self._node, self._sink, self._contract = node, sink, contract
        self._lock = threading.Lock()
        self._closed = False
        self._start_ns: int | None = None
        self.counts = {c.name: 0 for c in contract.cameras} | {"joint_states": 0, "command": 0}
        self._subscribe()

    def check_streams(self, elapsed_s: float) -> None:
        """Raises RosError when a required stream has published nothing at all."""
        required = [c.name for c in self._contract.observed_cameras if c.required]
        silent = [name for name in [*required, "joint_states"] if not self.counts[name]]
        if silent:
            raise RosError(
                f"nothing came from {', '.join(silent)} in {elapsed_s:.1f} s",
                mend="check that the robot runs, --namespace and the contract's topics: "
                "`fastvla doctor`",
            )

    def show(self, elapsed_s: float) -> None:
        """Print one line of progress."""
        if sys.stderr.isatty():
            counts = "  ".join(f"{name} {count}" for name, count in self.counts.items())
            print(f"\rrecording {elapsed_s:6.1f} s  {counts}", end="", file=sys.stderr)

    def close(self) -> None:
        """Take no more messages; what was taken has been handed on."""
        with self._lock:
            self._closed = True
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _subscribe(self) -> None:
        from rclpy.qos import (
            DurabilityPolicy,
            HistoryPolicy,
            QoSProfile,
            ReliabilityPolicy,
        )
        from sensor_msgs.msg import CompressedImage, Image, JointState
        from std_msgs.msg import String
        from trajectory_msgs.msg import JointTrajectory

        from fastvla_msgs.msg import TaskOutcome

        best_effort = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        contract = self._contract
        for camera in contract.cameras:
            kind = Image if camera.transport == "raw" else CompressedImage
            self._listen(camera.name, kind, camera.topic, best_effort)
        self._listen("joint_states", JointState, contract.joint_states.topic, best_effort)
        # Whatever the guard makes of it, the policy server commands by trajectories.
        self._listen("command", JointTrajectory, contract.outputs.command, _DEPTH)
        self._listen("current_task", String, "current_task", latched)
        self._node.create_subscription(TaskOutcome, "task_outcome", self._on_outcome, latched)

    def _listen(self, stream: str, kind: Any, topic: str, qos: Any) -> None:
        package = kind.__module__.split(".")[0]
        take = functools.partial(
            self._on_message,
            stream,
            self._node.resolve_topic_name(topic),
            f"{package}/msg/{kind.__name__}",
        )
        self._node.create_subscription(kind, topic, take, qos, raw=True)

    def _on_message(self, stream: str, topic: str, type_name: str, data: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        with self._lock:
            if self._closed:
                return
            self._sink.write(topic, type_name=type_name, message=data, stamp_ns=now_ns)
            self.counts[stream] = self.counts.get(stream, 0) + 1
            if stream == "joint_states" and self._start_ns is None:
                self._start_ns = _header_stamp_ns(data)

    def _on_outcome(self, message: Any) -> None:
        from rclpy.serialization import serialize_message

        self._on_message(
            "task_outcome",
            self._node.resolve_topic_name("task_outcome"),
            "fastvla_msgs/msg/TaskOutcome",
            bytes(serialize_message(message)),
        )
        # The last verdict is latched: one from before this recording is about another episode.
        if self._start_ns is None or stamp_ns(message.header.stamp) <= self._start_ns:
            return
        names = {message.SUCCESS: "success", message.FAILURE: "failure"}
        if message.outcome in names:
            self.outcome = names[message.outcome]
            self.ended.set()


def _header_stamp_ns(data: bytes) -> int:
    """The stamp at the start of a serialised message with a header."""
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", data, 4)
    return sec * 1_000_000_000 + nanosec
