"""Who is on the graph: endpoints from DDS discovery, nodes from `ros_discovery_info`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fastvla_ros.embedded.wire import discovered
from fastvla_ros.embedded.wire.dds_qos import DdsQos, user_data_items
from fastvla_ros.embedded.wire.deadlines import deadline, remaining
from fastvla_ros.embedded.wire.discovered import BuiltinReader, Discovered
from fastvla_ros.embedded.wire.discovery_info import TOPIC, TYPE, GraphNode, read_info, write_info
from fastvla_ros.embedded.wire.participant import Participant
from fastvla_ros.embedded.wire.statuses import Status


@dataclass(eq=False, slots=True)
class LocalNode:
    """What one of our nodes announces about itself; the sets hold endpoint GUIDs.

    Args:
        on_twin: Called, like all handlers of the wire, when another process announces a node of
            this name.
    """

    namespace: str
    name: str
    on_twin: Callable[[], None]
    readers: set[bytes] = field(default_factory=set)
    writers: set[bytes] = field(default_factory=set)


class Graph:
    """Announces our nodes and remembers everybody's; `changed` is notified of every change."""

    def __init__(self, participant: Participant) -> None:
        self._participant = participant
        self.changed = threading.Condition(threading.RLock())
        # A write may block; who waits for the wire must still be able to take `changed`.
        self._announcing = threading.Lock()
        self._local: list[LocalNode] = []
        self._remote: dict[bytes, list[GraphNode]] = {}
        self._enclaves: dict[bytes, str] = {}
        self._writers: dict[bytes, Discovered] = {}
        self._readers: dict[bytes, Discovered] = {}
        self._open_info_topic()
        self._watch_endpoints(discovered.WRITERS, self._writers)
        self._watch_endpoints(discovered.READERS, self._readers)
        self._watch_participants()

    def add_node(self, node: LocalNode) -> None:
        """Announce a node of ours."""
        with self.changed:
            self._local.append(node)
        self.announce()

    def remove_node(self, node: LocalNode) -> None:
        """Withdraw a node of ours."""
        with self.changed:
            self._local.remove(node)
        self.announce()

    def announce(self) -> None:
        """Tell the graph about our nodes and their endpoints."""
        with self._announcing:
            with self.changed:
                nodes = self._ours()
                self.changed.notify_all()
            self._info_writer.write(write_info(self._participant.guid, nodes))

    def nodes(self) -> list[GraphNode]:
        """Every node on the graph, ours included."""
        with self.changed:
            return self._ours() + [node for nodes in self._remote.values() for node in nodes]

    def enclave(self, participant: bytes) -> str:
        """The enclave of a participant, "" while it is not known."""
        with self.changed:
            return self._enclaves.get(participant, "")

    def writers(self) -> list[Discovered]:
        """Every writer on the graph, ours included."""
        with self.changed:
            return list(self._writers.values())

    def readers(self) -> list[Discovered]:
        """Every reader on the graph, ours included."""
        with self.changed:
            return list(self._readers.values())

    def notify(self) -> None:
        """Make those who wait look again: a match, or the end of the context."""
        with self.changed:
            self.changed.notify_all()

    def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float | None, ok: Callable[[], bool]
    ) -> bool:
        """Wait for a condition on the graph or on matches.

        Args:
            timeout_s: None and negative numbers mean forever.
            ok: Ends the waiting when it becomes false.
        Returns:
            Whether the condition holds.
        """
        end = deadline(timeout_s)
        with self.changed:
            while not condition():
                left_s = remaining(end)
                if not ok() or left_s == 0:
                    return False
                self._participant.waitset.relieve()
                self.changed.wait(left_s)
        return True

    def _ours(self) -> list[GraphNode]:
        guid = self._participant.guid
        return [
            GraphNode(guid, n.namespace, n.name, frozenset(n.readers), frozenset(n.writers))
            for n in self._local
        ]

    def _open_info_topic(self) -> None:
        user_data = self._participant.type_user_data(TYPE)
        offered = DdsQos(reliable=True, depth=1, transient_local=True, user_data=user_data)
        asked = DdsQos(reliable=True, transient_local=True, ignore_own=True, user_data=user_data)
        self._info_writer = self._participant.topic_writer(TOPIC, TYPE, offered)
        self._info_reader = self._participant.topic_reader(TOPIC, TYPE, asked)
        self._watch(self._info_reader.ref, self._on_info)

    def _watch(self, ref: int, handler: Callable[[int], None]) -> None:
        self._participant.waitset.attach(ref, Status.DATA_AVAILABLE, handler)

    def _on_info(self, _status: int) -> None:
        infos = [read_info(sample.data) for sample in self._info_reader.take()]
        twins: list[LocalNode] = []
        with self.changed:
            for participant, nodes in infos:
                before = {(n.namespace, n.name) for n in self._remote.get(participant, [])}
                self._remote[participant] = nodes
                new = {(n.namespace, n.name) for n in nodes} - before
                twins += [n for n in self._local if (n.namespace, n.name) in new]
            self.changed.notify_all()
        for node in twins:
            node.on_twin()

    def _watch_endpoints(self, topic: int, endpoints: dict[bytes, Discovered]) -> None:
        reader = BuiltinReader(self._participant.ref, topic, discovered.read_endpoint)

        def update(_status: int) -> None:
            taken = reader.take()
            with self.changed:
                for guid, endpoint in taken:
                    if endpoint is not None:
                        endpoints[guid] = endpoint
                    else:
                        endpoints.pop(guid, None)
                self.changed.notify_all()

        self._watch(reader.ref, update)

    def _watch_participants(self) -> None:
        reader = BuiltinReader(
            self._participant.ref, discovered.PARTICIPANTS, discovered.read_participant
        )

        def update(_status: int) -> None:
            taken = reader.take()
            with self.changed:
                for guid, user_data in taken:
                    if user_data is not None:
                        self._enclaves[guid] = user_data_items(user_data).get("enclave", "")
                    else:
                        self._enclaves.pop(guid, None)
                        self._remote.pop(guid, None)
                self.changed.notify_all()

        self._watch(reader.ref, update)
