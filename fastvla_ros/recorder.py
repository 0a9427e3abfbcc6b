"""Listens to a running robot and hands what it hears, serialised, to whoever writes it down."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from fastvla_core.errors import FastVLAError, RosError
from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_core.robot.contract import RobotContract
from fastvla_core.signal_flag import SignalFlag
from fastvla_ros.bridge.joints import stamp_ns
from fastvla_ros.recording.streams import (
    Stream,
    header_stamp_ns,
    listen,
    read_message,
    robot_streams,
    serving_streams,
    task_streams,
)
from fastvla_ros.recording.watch import StreamWatch, why_silent
from fastvla_ros.runtime import ensure_ros

if TYPE_CHECKING:
    from rclpy.node import Node

WAIT_S = 10.0
"""How long the robot's required streams may take to appear."""

_POLL_S = 0.1
# What was heard longer ago than this survives a killed process.
_FLUSH_S = 0.5
_TASK_OUTCOME = "task_outcome"


class EpisodeSink(Protocol):
    """Where the messages go: a bag writer."""

    def write(self, topic: str, *, type_name: str, message: Any, stamp_ns: int) -> None:
        """Take one message, as CDR bytes, with its time of receipt."""
        ...

    def flush(self) -> None:
        """Make what was taken survive the end of this process."""
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
    """Record until the task's outcome, Ctrl-C, SIGTERM or `duration_s`; returns the outcome.

    Args:
        namespace: Of the robot's topics.
        use_sim_time: Take the time of receipt from `/clock`.

    Returns:
        `success`, `failure`, or `unknown` when nobody judged the task.

    Raises:
        RosError: a camera or the joint states published nothing for `WAIT_S`.
        FastVLAError: the sink takes no more, because the disk is full for example.
    """
    ensure_ros()
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from fastvla_ros.bringup_spin import SharedProcess

    with SharedProcess(domain_id=domain_id) as process, _until_told_to_stop() as stop:
        node = Node(
            "recorder",
            namespace=namespace or None,
            use_global_arguments=False,
            parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
        )
        # Subscribed before it is spun, so that no callback finds half a recorder.
        recorder = LiveRecorder(node, sink=sink, contract=contract)
        process.add(node)
        try:
            while not (stop.is_set() or recorder.ended.wait(_POLL_S)):
                if process.failure is not None:
                    raise process.failure
                recorder.look()
                if duration_s is not None and recorder.elapsed_s >= duration_s:
                    break
        except KeyboardInterrupt:
            pass
        finally:
            recorder.close()
        recorder.check_streams()
        return recorder.outcome


def _command(contract: RobotContract) -> Stream:
    """What leads the robot: the policy server, or a person's device that speaks its interface."""
    stream = next(s for s in serving_streams(contract) if s.name == "command")
    if contract.outputs.interface == "forward_position":
        return dataclasses.replace(stream, type_name=contract.outputs.message_type)
    return stream


@contextlib.contextmanager
def _until_told_to_stop() -> Iterator[SignalFlag]:
    """A flag that SIGTERM sets, where this thread may take signals."""
    told = SignalFlag()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


class LiveRecorder:
    """Subscribes to everything that the contract names, without decoding pictures.

    Attributes:
        ended: Set when somebody judged the task, or the sink takes no more.
        outcome: `success`, `failure` or `unknown`.
    """

    def __init__(self, node: Node, *, sink: EpisodeSink, contract: RobotContract) -> None:
        self.ended = threading.Event()
        self.outcome = "unknown"
        self._node, self._sink, self._contract = node, sink, contract
        self._lock = threading.Lock()
        self._closed = False
        self._failure: FastVLAError | OSError | None = None
        self._start_ns: int | None = None
        self._started_s = self._flushed_s = time.monotonic()
        streams = (*robot_streams(contract), _command(contract), *task_streams())
        self._watch = StreamWatch(streams)
        for stream in streams:
            take = functools.partial(
                self._on_message, stream, node.resolve_topic_name(stream.topic)
            )
            listen(node, stream, take)

    @property
    def elapsed_s(self) -> float:
        """Since the start [s]."""
        return time.monotonic() - self._started_s

    @property
    def counts(self) -> dict[str, int]:
        """Stream to number of messages."""
        return self._watch.counts

    def look(self) -> None:
        """Flush, say what is new, show the progress.

        Raises:
            RosError: as `check_streams`, once `WAIT_S` is over.
        """
        now_s = time.monotonic()
        with self._lock:
            if not self._closed and now_s - self._flushed_s > _FLUSH_S:
                self._flushed_s = now_s
                self._try(self._sink.flush)
            news = self._watch.fallen_silent(now_s=self.elapsed_s)
        if self.elapsed_s > WAIT_S:
            self.check_streams()
            optional = [s for s in self._watch.missing() if s.is_camera and self._watch.miss(s)]
            news += [f"{s.name} is missing: {why_silent(self._node, s)}" for s in optional]
        for text in news:
            self._say(text)
        self._show()

    def check_streams(self) -> None:
        """See that all is well.

        Raises:
            RosError: a required stream has published nothing at all; says why.
            FastVLAError, OSError: the sink takes no more.
        """
        if self._failure is not None:
            raise self._failure
        required = {c.name for c in self._contract.policy_cameras if c.required} | {JOINT_STATES}
        silent = [s for s in self._watch.missing() if s.name in required]
        if silent:
            names = ", ".join(stream.name for stream in silent)
            reasons = "; ".join(why_silent(self._node, stream) for stream in silent)
            raise RosError(
                f"nothing came from {names} in {self.elapsed_s:.1f} s: {reasons}",
                mend="check that the robot runs, --namespace and the contract's topics: "
                "`fastvla doctor`",
            )

    def close(self) -> None:
        """Take no more messages; what was taken has been handed on."""
        with self._lock:
            self._closed = True
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _on_message(self, stream: Stream, topic: str, data: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        with self._lock:
            if self._closed:
                return
            self._try(
                functools.partial(
                    self._sink.write,
                    topic,
                    type_name=stream.type_name,
                    message=data,
                    stamp_ns=now_ns,
                )
            )
            news = self._watch.on_message(stream.name, at_s=self.elapsed_s)
            if stream.name == JOINT_STATES and self._start_ns is None:
                self._start_ns = header_stamp_ns(data)
        if news and not stream.latched:
            self._say(news)
        if stream.name == _TASK_OUTCOME:
            self._judge(data)

    def _try(self, action: Any) -> None:
        """Have the sink do something; its refusal ends the recording, in the main thread."""
        try:
            action()
        except (FastVLAError, OSError) as error:
            self._failure, self._closed = error, True
            self.ended.set()

    def _judge(self, data: bytes) -> None:
        from fastvla_msgs.msg import TaskOutcome

        message = read_message(data, TaskOutcome)
        # The last verdict is latched: one from before this recording is about another episode.
        if (
            message is None
            or self._start_ns is None
            or stamp_ns(message.header.stamp) <= self._start_ns
        ):
            return
        names = {message.SUCCESS: "success", message.FAILURE: "failure"}
        if message.outcome in names:
            self.outcome = names[message.outcome]
            self.ended.set()

    def _say(self, text: str) -> None:
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{start}fastvla record: {text}", file=sys.stderr, flush=True)

    def _show(self) -> None:
        if sys.stderr.isatty():
            counts = "  ".join(f"{name} {count}" for name, count in self.counts.items())
            print(f"\rrecording {self.elapsed_s:6.1f} s  {counts}", end="", file=sys.stderr)
