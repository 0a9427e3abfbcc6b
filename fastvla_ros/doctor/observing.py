"""Takes the live graph down: who is there, and what comes, in a few seconds."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from fastvla_core.robot.contract import RobotContract
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.doctor.graph import Endpoint, Heard, LiveGraph
from fastvla_ros.doctor.network import discovery_range, ros_domain
from fastvla_ros.recording.streams import (
    ACTION,
    Stream,
    header_stamp_ns,
    listen,
    robot_streams,
    serving_streams,
    task_streams,
)

T = TypeVar("T")

CLOCK = "/clock"
LIFECYCLE_NODE = "policy_server"

_LONGEST_DISCOVERY_S = 3.0
_QUIET_S = 0.6
_ANSWER_S = 2.0
# rclpy gives an unbounded duration as the largest number that fits, and DDS counts in between.
_UNBOUNDED_NS = 1 << 60


def observe(contract: RobotContract, *, namespace: str, listen_s: float) -> LiveGraph:
    """Join the graph, listen for `listen_s`, ask the nodes, and leave.

    Takes at most `listen_s` and about ten seconds more, also when nothing answers.

    Raises:
        FastVLAError: ROS cannot be used here.
    """
    with SharedProcess() as process:
        return observe_within(process, contract, namespace=namespace, listen_s=listen_s)


def observe_within(
    process: SharedProcess, contract: RobotContract, *, namespace: str, listen_s: float
) -> LiveGraph:
    """As `observe`, in a process that is on the graph already."""
    from rclpy.node import Node

    node = process.add(
        Node(
            f"_fastvla_doctor_{os.getpid()}",
            namespace=namespace or None,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
    )
    observer = _Observer(node, contract)
    others = observer.wait_for_discovery()
    graph = LiveGraph(
        domain=ros_domain(),
        discovery=discovery_range(),
        namespace=node.get_namespace(),
        listened_s=listen_s if others else 0.0,
    )
    return observer.complete(graph) if others else graph


class _Observer:
    def __init__(self, node: Any, contract: RobotContract) -> None:
        self._node = node
        self._streams = (
            *robot_streams(contract),
            *serving_streams(contract),
            *task_streams(),
        )
        self._gripper = contract.gripper.action if contract.gripper else None
        self._clock_ns: int | None = None

    def wait_for_discovery(self) -> tuple[str, ...]:
        """The other nodes, once no new one has come for a moment."""
        begin = changed = time.monotonic()
        known: tuple[str, ...] = ()
        while (now := time.monotonic()) - begin < _LONGEST_DISCOVERY_S:
            if (others := self._others()) != known:
                known, changed = others, now
            if now - max(changed, begin) > _QUIET_S and now - begin > 2 * _QUIET_S:
                break
            time.sleep(0.05)
        return known

    def complete(self, graph: LiveGraph) -> LiveGraph:
        """Listen, and fill in what the graph says."""
        ears = self._listen(graph.listened_s)
        types = {name: tuple(kinds) for name, kinds in self._node.get_topic_names_and_types()}
        topics = {graph.full_name(stream.topic) for stream in self._streams} | {CLOCK}
        for action in filter(None, (self._gripper, ACTION)):
            topics |= {graph.full_name(f"{action}/_action/{t}") for t in ("status", "feedback")}
        talking = {t: self._node.get_publishers_info_by_topic(t) for t in topics}
        listening = {t: self._node.get_subscriptions_info_by_topic(t) for t in topics}
        return replace(
            graph,
            nodes=self._others(),
            streams=self._streams,
            publishers={topic: self._endpoints(infos) for topic, infos in talking.items()},
            subscriptions={topic: self._endpoints(infos) for topic, infos in listening.items()},
            types=types,
            heard={name: ear.heard() for name, ear in ears.items()},
            sim_time=self._sim_time(),
            states=self._states(graph),
        )

    def _others(self) -> tuple[str, ...]:
        own = self._node.get_name()
        names = self._node.get_node_names_and_namespaces()
        # Names that begin with "_" are hidden: tools such as this one, and the daemon of `ros2`.
        found = [(ns, name) for name, ns in names if name != own and not name.startswith("_")]
        return tuple(sorted(f"{ns.rstrip('/')}/{name}" for ns, name in found))

    def _endpoints(self, infos: Iterable[Any]) -> tuple[Endpoint, ...]:
        # This node listens, too, and is none of the robot's.
        own = self._node.get_name()
        return tuple(_endpoint(info) for info in infos if info.node_name != own)

    def _listen(self, seconds: float) -> dict[str, _Ear]:
        from rosgraph_msgs.msg import Clock

        def on_clock(message: Any) -> None:
            self._clock_ns = message.clock.sec * 1_000_000_000 + message.clock.nanosec

        self._node.create_subscription(Clock, CLOCK, on_clock, 1)
        ears = {}
        for stream in self._streams:
            if stream.is_sensor:
                ears[stream.name] = ear = _Ear(stream, now_ns=self._robot_now_ns)
                listen(self._node, stream, ear.take)
        time.sleep(seconds)
        return ears

    def _robot_now_ns(self) -> int:
        return time.time_ns() if self._clock_ns is None else self._clock_ns

    def _sim_time(self) -> dict[str, bool]:
        from rcl_interfaces.srv import GetParameters

        request = GetParameters.Request(names=["use_sim_time"])
        asked = {
            name: (GetParameters, f"{name}/get_parameters", request) for name in self._others()
        }
        answers = self._ask(asked)
        return {
            name: bool(answer.values[0].bool_value)
            for name, answer in answers.items()
            if answer.values
        }

    def _states(self, graph: LiveGraph) -> dict[str, str]:
        from lifecycle_msgs.srv import GetState

        name = graph.full_name(LIFECYCLE_NODE)
        if name not in self._others():
            return {}
        answers = self._ask({name: (GetState, f"{name}/get_state", GetState.Request())})
        return {name: answer.current_state.label for name, answer in answers.items()}

    def _ask(self, requests: dict[str, tuple[Any, str, Any]]) -> dict[str, Any]:
        """Call services all at once; those that do not answer in time are left out."""
        answers: dict[str, Any] = {}
        left = threading.Semaphore(0)
        clients = []
        for name, (kind, service, request) in requests.items():
            client = self._node.create_client(kind, service)
            clients.append(client)
            take = functools.partial(_keep_answer, answers, name, left.release)
            _call_when_ready(client, request, take)
        deadline = time.monotonic() + _ANSWER_S
        for _ in clients:
            if not left.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
                break
        for client in clients:
            self._node.destroy_client(client)
        return dict(answers)


class _Ear:
    """Listens to one stream without decoding more than its last message."""

    def __init__(self, stream: Stream, *, now_ns: Callable[[], int]) -> None:
        self._stream, self._now_ns = stream, now_ns
        self._times_s: list[float] = []
        self._late_s: list[float | None] = []
        self._last: bytes | None = None

    def take(self, data: bytes) -> None:
        """One message, serialised."""
        stamp_ns = header_stamp_ns(data)
        late_s = (self._now_ns() - stamp_ns) * 1e-9 if stamp_ns else None
        self._late_s.append(late_s)
        self._times_s.append(time.monotonic())
        self._last = data

    def heard(self) -> Heard:
        """What came so far."""
        from rclpy.serialization import deserialize_message

        last = self._last
        kind = message_class(self._stream.type_name)
        return Heard(
            times_s=tuple(self._times_s),
            late_s=tuple(self._late_s),
            message=None if last is None else deserialize_message(last, kind),
        )


def _call_when_ready(client: Any, request: Any, done: Callable[[Any], None]) -> None:
    # A service whose other half is not there yet would swallow the request.
    if client.wait_for_service(timeout_sec=_QUIET_S):
        client.call_async(request).add_done_callback(done)


def _keep_answer(
    answers: dict[str, Any], name: str, finished: Callable[[], None], future: Any
) -> None:
    answers[name] = future.result()
    finished()


def _endpoint(info: Any) -> Endpoint:
    from rclpy.qos import DurabilityPolicy, LivelinessPolicy, ReliabilityPolicy

    qos = info.qos_profile
    return Endpoint(
        node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        type_name=info.topic_type,
        reliable=qos.reliability == ReliabilityPolicy.RELIABLE,
        durable=qos.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        deadline_ns=_bounded(qos.deadline),
        by_topic=qos.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC,
        lease_ns=_bounded(qos.liveliness_lease_duration),
    )


def _bounded(duration: Any) -> int | None:
    nanoseconds = duration.nanoseconds
    return nanoseconds if 0 < nanoseconds < _UNBOUNDED_NS else None
