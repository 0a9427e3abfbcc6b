"""Topics of the contract: somebody publishes, types and QoS fit, messages come often enough."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_core.robot.contract import RobotContract
from fastvla_ros.doctor.findings import Finding, error, ok, warning
from fastvla_ros.doctor.graph import Endpoint, LiveGraph, names_of
from fastvla_ros.recording.streams import Stream


def check_publishers(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Every camera and the joint states have a publisher, and one only."""
    good = True
    for stream in _sensors(graph):
        publishers = graph.publishers_of(stream.topic)
        if not publishers:
            good = False
            yield _nobody(graph, contract, stream)
        elif len(publishers) > 1:
            good = False
            yield warning(
                "publishers",
                f"'{graph.full_name(stream.topic)}' ({stream.name}) has {len(publishers)} "
                f"publishers: {names_of(publishers)}",
                mend="stop all but one, or remap them: their messages are mixed",
            )
    if good:
        yield ok("publishers", "every camera and the joint states have one")


def _nobody(graph: LiveGraph, contract: RobotContract, stream: Stream) -> Finding:
    topic = graph.full_name(stream.topic)
    what = f"nobody publishes '{topic}' ({stream.name})"
    likely = likely_topic(graph, stream)
    mend = "start its driver; "
    mend += f"or set the contract's topic to '{likely}'" if likely else "or remap its topic"
    needed = stream.name == JOINT_STATES or (
        contract.camera(stream.name).required and contract.camera(stream.name).policy
    )
    return (error if needed else warning)("publishers", what, mend=mend)


def likely_topic(graph: LiveGraph, stream: Stream) -> str:
    """A topic of the right type whose name is nearest; "" when there is none."""
    candidates = [name for name, kinds in graph.types.items() if stream.type_name in kinds]
    known = {graph.full_name(other.topic) for other in graph.streams}
    others = [name for name in candidates if name not in known]
    near = difflib.get_close_matches(graph.full_name(stream.topic), others, n=1, cutoff=0.3)
    return near[0] if near else ""


def check_types(graph: LiveGraph, _contract: RobotContract) -> Iterator[Finding]:
    """Both ends of every topic use the contract's message type."""
    good = True
    for stream in graph.streams:
        for endpoint in (
            *graph.publishers_of(stream.topic),
            *graph.subscriptions_of(stream.topic),
        ):
            if endpoint.type_name != stream.type_name:
                good = False
                yield error(
                    "types",
                    f"{endpoint.node} has '{graph.full_name(stream.topic)}' as "
                    f"{endpoint.type_name}, the contract says {stream.type_name}",
                    mend=_type_mend(stream),
                )
    if good:
        yield ok("types", "as the contract says")


def _type_mend(stream: Stream) -> str:
    if stream.is_camera:
        return "set the camera's transport in the contract (raw, compressed, ...), or its topic"
    if stream.name == "output":
        return "set outputs.interface in the contract to what the controller takes"
    return "remap one of the two: a topic has one type"


def check_qos(graph: LiveGraph, _contract: RobotContract) -> Iterator[Finding]:
    """Every subscription gets what it asks for; ROS itself is silent when it does not."""
    good = True
    for stream in graph.streams:
        topic = graph.full_name(stream.topic)
        for publisher in graph.publishers_of(stream.topic):
            for subscription in graph.subscriptions_of(stream.topic):
                for offer, wish, mend in incompatibilities(publisher, subscription):
                    good = False
                    yield error(
                        "qos",
                        f"'{topic}': {publisher.node} {offer}, {subscription.node} {wish}: "
                        "nothing gets through",
                        mend=mend,
                    )
    if good:
        yield ok("qos", "every publisher offers what its subscriptions ask for")


def incompatibilities(offered: Endpoint, asked: Endpoint) -> Iterator[tuple[str, str, str]]:
    """Where a publisher offers less than a subscription asks for.

    Yields:
        What the publisher offers, what the subscription asks for, and how to mend it.

    Source: DDS 1.4, section 2.2.3, requested/offered semantics.
    """
    if asked.reliable and not offered.reliable:
        yield (
            "offers reliability BEST_EFFORT",
            "asks for RELIABLE",
            "subscribe with BEST_EFFORT (sensor data QoS), or publish RELIABLE",
        )
    if asked.durable and not offered.durable:
        yield (
            "offers durability VOLATILE",
            "asks for TRANSIENT_LOCAL",
            "subscribe with VOLATILE, or publish TRANSIENT_LOCAL",
        )
    for name, ours, theirs in (
        ("deadline", offered.deadline_ns, asked.deadline_ns),
        ("liveliness lease duration", offered.lease_ns, asked.lease_ns),
    ):
        if theirs is not None and (ours is None or ours > theirs):
            yield (
                f"offers {name} {_seconds(ours)}",
                f"asks for {_seconds(theirs)}",
                f"ask for a longer {name}, or offer a shorter one",
            )
    if asked.by_topic and not offered.by_topic:
        yield (
            "offers liveliness AUTOMATIC",
            "asks for MANUAL_BY_TOPIC",
            "ask for AUTOMATIC, or offer MANUAL_BY_TOPIC",
        )


def _seconds(duration_ns: int | None) -> str:
    return "infinite" if duration_ns is None else f"{duration_ns * 1e-9:g} s"


def check_rates(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Messages come more often than they may be old, and joints as often as commands."""
    rates = []
    for stream in _sensors(graph):
        if not graph.publishers_of(stream.topic):
            continue  # said already
        is_camera = stream.name != JOINT_STATES
        spec = contract.camera(stream.name) if is_camera else contract.joint_states
        wanted_hz = 1 / spec.max_age_s if is_camera else contract.control_rate_hz
        needed = not is_camera or contract.camera(stream.name).required
        heard = graph.heard[stream.name]
        if heard.rate_hz is None:
            yield _silent(graph, stream, needed=needed)
        elif heard.largest_gap_s > spec.max_age_s:
            yield warning(
                "rates",
                f"{stream.name} pauses for up to {heard.largest_gap_s:.2f} s "
                f"({heard.rate_hz:.1f} Hz on average); it may be {spec.max_age_s:g} s old",
                mend="look at its driver and the network; or raise max_age_s in the contract",
            )
        elif heard.rate_hz < wanted_hz:
            yield warning(
                "rates",
                f"{stream.name} comes with {heard.rate_hz:.1f} Hz, {wanted_hz:.1f} Hz are needed",
                mend="raise its rate; a robot that commands more often than it measures guesses",
            )
        else:
            rates.append(f"{stream.name} {heard.rate_hz:.0f} Hz")
    if rates:
        yield ok("rates", f"{', '.join(rates)} (over {graph.listened_s:g} s)")


def _silent(graph: LiveGraph, stream: Stream, *, needed: bool) -> Finding:
    count = len(graph.heard[stream.name].times_s)
    publishers = graph.publishers_of(stream.topic)
    what = (
        f"{count or 'no'} message{'' if count == 1 else 's'} of {stream.name} in "
        f"{graph.listened_s:g} s, though {names_of(publishers)} publishes it"
    )
    mend = "look at its driver's log; a large image that is lost: see network buffers"
    return (error if needed else warning)("rates", what, mend=mend)


def _sensors(graph: LiveGraph) -> Iterator[Stream]:
    return (stream for stream in graph.streams if stream.is_sensor)
