"""This process's place in a DDS domain, shared by all nodes of one context."""

from __future__ import annotations

import itertools
import struct
import threading
from collections.abc import Callable

from fastvla_core.errors import DependencyError, RosError
from fastvla_ros.embedded.wire.config import cyclonedds_config, warn_about_receive_buffer
from fastvla_ros.embedded.wire.dds_qos import DdsQos, native_user_data
from fastvla_ros.embedded.wire.entities import Entity, Reader, Writer
from fastvla_ros.embedded.wire.libddsc import MEND, check, library, topic_factory
from fastvla_ros.embedded.wire.memory import keep_freed_memory
from fastvla_ros.embedded.wire.topic_types import TopicType, TopicTypes
from fastvla_ros.embedded.wire.typestore import TypeStore
from fastvla_ros.embedded.wire.waitset import WaitSet


class Domains:
    """Configures each domain of this process once: CycloneDDS takes the XML only at creation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Entity, int]] = {}

    def acquire(self, domain_id: int) -> None:
        """Open the domain for one more participant."""
        with self._lock:
            if domain_id not in self._open:
                warn_about_receive_buffer()
                keep_freed_memory()
                config = cyclonedds_config().encode()
                ref = library().dds_create_domain(domain_id, config)
                self._open[domain_id] = (Entity(ref, f"joining domain {domain_id}"), 0)
            domain, users = self._open[domain_id]
            self._open[domain_id] = (domain, users + 1)

    def release(self, domain_id: int) -> None:
        """Close the domain with its last participant."""
        with self._lock:
            domain, users = self._open[domain_id]
            if users > 1:
                self._open[domain_id] = (domain, users - 1)
            else:
                del self._open[domain_id]
                domain.delete()


class Participant:
    """A domain participant with its topics, its wait set and its identities.

    Raises:
        RosError: no participant index is free, or the domain id is out of range.
        DependencyError: the installed cyclonedds has another sample container.
    """

    def __init__(
        self,
        store: TypeStore,
        *,
        domains: Domains,
        domain_id: int,
        enclave: str = "/",
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.domain_id = domain_id
        self._domains = domains
        self._types = TopicTypes(store)
        self._topics: dict[tuple[str, TopicType], int] = {}
        self._lock = threading.Lock()
        self._identities = itertools.count(1)
        domains.acquire(domain_id)
        with native_user_data(f"enclave={enclave};".encode()) as qos:
            self.ref = library().dds_create_participant(domain_id, qos, None)
        if self.ref < 0:
            domains.release(domain_id)
            raise RosError(
                f"cannot join DDS domain {domain_id}: code {self.ref}",
                mend="end other ROS processes (61 fit on one machine) or set ROS_DOMAIN_ID",
            )
        self._publisher = check(
            library().dds_create_publisher(self.ref, None, None), "dds_create_publisher"
        )
        self._subscriber = check(
            library().dds_create_subscriber(self.ref, None, None), "dds_create_subscriber"
        )
        self._entity = Entity(self.ref, "the participant")
        self.guid = self._entity.guid
        self_test(self)
        self.waitset = WaitSet(self.ref, on_error=on_error)

    def type_user_data(self, name: str) -> bytes:
        """The USER_DATA item that names the type's hash."""
        return f"typehash={self.store.type_hash(name)};".encode()

    def topic_writer(self, topic: str, name: str, qos: DdsQos) -> Writer:
        """A writer of a plain message type; `topic` is the DDS name."""
        return Writer(self._publisher, self._topic(topic, self._types.plain(name)), qos)

    def topic_reader(self, topic: str, name: str, qos: DdsQos) -> Reader:
        """A reader of a plain message type; `topic` is the DDS name."""
        return Reader(self._subscriber, self._topic(topic, self._types.plain(name)), qos)

    def service_writer(self, topic: str, name: str, qos: DdsQos) -> Writer:
        """A writer of requests or replies."""
        return Writer(self._publisher, self._topic(topic, self._types.service(name)), qos)

    def service_reader(self, topic: str, name: str, qos: DdsQos) -> Reader:
        """A reader of requests or replies."""
        return Reader(self._subscriber, self._topic(topic, self._types.service(name)), qos)

    def new_identity(self) -> str:
        """A fresh clientid or serviceid: our GUID prefix and a counter, in rmw's notation."""
        raw = self.guid[:12] + struct.pack(">I", next(self._identities))
        # rmw pads the first byte with a blank, and compares the texts.
        return f"{raw[0]:2x}" + "".join(f".{byte:x}" for byte in raw[1:])

    def close(self) -> None:
        """Leave the domain; every entity of the participant goes with it."""
        self.waitset.stop()
        self._entity.delete()
        self._domains.release(self.domain_id)

    def _topic(self, name: str, kind: TopicType) -> int:
        with self._lock:
            key = (name, kind)
            if key not in self._topics:
                ref = topic_factory()(self.ref, name, kind, None, None)
                self._topics[key] = check(ref, f"topic '{name}'")
            return self._topics[key]


def self_test(participant: Participant) -> None:
    """Write and take one sample; the topic's name is outside ROS's name space.

    Raises:
        DependencyError: the bytes do not come back.
    """
    name, kind = "fastvla_self_test", "std_msgs/msg/UInt64"
    # Real nodes warn about endpoints without a type hash.
    qos = DdsQos(reliable=True, depth=1, user_data=participant.type_user_data(kind))
    reader = participant.topic_reader(name, kind, qos)
    writer = participant.topic_writer(name, kind, qos)
    sent = bytearray(b"\x00\x01\x00\x00" + participant.guid[:8])
    writer.write(sent)
    received = [bytes(sample.data) for sample in reader.take()]
    writer.delete()
    reader.delete()
    if received != [bytes(sent)]:
        raise DependencyError(
            "the installed cyclonedds package passes samples in another layout",
            mend=MEND,
        )
