"""The live graph as plain data, so that every check is a function of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastvla_ros.recording.streams import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One publisher or subscription.

    Attributes:
        node: Full name of its node.
        reliable, durable: RELIABLE or BEST_EFFORT; TRANSIENT_LOCAL or VOLATILE.
        deadline_ns: Longest time between two messages; None when there is no bound.
        by_topic: Liveliness MANUAL_BY_TOPIC instead of AUTOMATIC.
        lease_ns: Liveliness lease duration; None when there is no bound.
    """

    node: str
    type_name: str
    reliable: bool = True
    durable: bool = False
    deadline_ns: int | None = None
    by_topic: bool = False
    lease_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came from one stream while it was listened to.

    Attributes:
        times_s: Receipt of each message, monotonic.
        late_s: How far each header stamp was behind the clock of the robot; None where stamps
            were 0.
        message: The last one, decoded; None when nothing came.
    """

    times_s: tuple[float, ...] = ()
    late_s: tuple[float | None, ...] = ()
    message: object | None = None

    @property
    def rate_hz(self) -> float | None:
        """Mean rate [1/s]; None before two messages."""
        if len(self.times_s) < 2:
            return None
        return (len(self.times_s) - 1) / max(self.times_s[-1] - self.times_s[0], 1e-9)

    @property
    def largest_gap_s(self) -> float:
        """Longest time between two messages [s]; 0 before two."""
        pairs = zip(self.times_s, self.times_s[1:])
        return max((later - earlier for earlier, later in pairs), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGraph:
    """What runs, who is connected to whom, and what was heard.

    Attributes:
        namespace: Of the robot, "/" at the root.
        nodes: Full names, as often as they are there; without the doctor's own.
        streams: What the contract implies.
        publishers, subscriptions: By full topic name.
        types: Every topic on the graph, with its types.
        heard: By the stream's name; only streams that were listened to.
        sim_time: Full node name to its `use_sim_time`; only nodes that answered.
        states: Full node name to its lifecycle state; only nodes that answered.
    """

    domain: str
    discovery: str
    namespace: str
    listened_s: float
    nodes: tuple[str, ...] = ()
    streams: tuple[Stream, ...] = ()
    publishers: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    subscriptions: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    sim_time: Mapping[str, bool] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)

    def full_name(self, name: str) -> str:
        """A topic, service or node name below the robot's namespace."""
        return name if name.startswith("/") else f"{self.namespace.rstrip('/')}/{name}"

    def stream(self, name: str) -> Stream:
        """The stream of that name."""
        return next(stream for stream in self.streams if stream.name == name)

    def publishers_of(self, topic: str) -> tuple[Endpoint, ...]:
        """Of a topic below the robot's namespace."""
        return self.publishers.get(self.full_name(topic), ())

    def subscriptions_of(self, topic: str) -> tuple[Endpoint, ...]:
        """Of a topic below the robot's namespace."""
        return self.subscriptions.get(self.full_name(topic), ())

    def has_node(self, name: str) -> bool:
        """Whether a node of that name runs in the robot's namespace."""
        return self.full_name(name) in self.nodes


def names_of(endpoints: tuple[Endpoint, ...]) -> str:
    """Their nodes, for a message."""
    return ", ".join(sorted({endpoint.node for endpoint in endpoints}))
