"""Readers and writers of serialised samples."""

from __future__ import annotations

import ctypes as ct
import weakref
from functools import cache
from typing import Any, NamedTuple

from fastvla_ros.embedded.wire.dds_qos import DdsQos, native
from fastvla_ros.embedded.wire.discovered import GUID_BYTES, Discovered, read_endpoint
from fastvla_ros.embedded.wire.libddsc import (
    ALREADY_DELETED,
    ANY_STATE,
    TIMEOUT,
    Container,
    IoVector,
    SampleInfo,
    check,
    library,
    quick_calls,
)

BATCH = 16
# Below this size a copy is cheaper than a finaliser.
VIEW_BYTES = 4096


class Sample(NamedTuple):
    """Received bytes, who wrote them and when (ns since the epoch, writer's clock)."""

    data: memoryview
    publication_handle: int
    source_stamp_ns: int


# Not by `getattr` in every call: the cache of attributes keeps each name that was put together,
# up to 4,096 of them, and a node asks for its peers several times a second.
@cache
def _getter(what: str) -> Any:
    return getattr(library(), f"dds_get_{what}")


class Entity:
    """A DDS entity, by the handle that the C calls want."""

    def __init__(self, ref: int, what: str) -> None:
        self.ref = check(ref, what)

    @property
    def guid(self) -> bytes:
        """The 16 bytes that name it on the wire."""
        guid = (ct.c_uint8 * GUID_BYTES)()
        check(library().dds_get_guid(self.ref, guid), "dds_get_guid")
        return bytes(guid)

    def instance_handle(self) -> int:
        """What other participants call it in sample infos."""
        handle = ct.c_uint64()
        code = library().dds_get_instance_handle(self.ref, ct.byref(handle))
        check(code, "dds_get_instance_handle")
        return handle.value

    def read_status(self, name: str, into: ct.Structure) -> None:
        """Fill in the details of a status; its `change` counters start anew."""
        check(_getter(f"{name}_status")(self.ref, ct.byref(into)), f"status {name}")

    def delete(self) -> None:
        """Leave the domain; to delete what is deleted changes nothing."""
        library().dds_delete(self.ref)


class _Endpoint(Entity):
    """What readers and writers share: peers."""

    # What libddsc calls the peers.
    _peer_kind = ""

    def peers(self) -> list[int]:
        """Handles of the matched peers; none when another thread has just deleted this."""
        room = BATCH
        while True:
            handles = (ct.c_uint64 * room)()
            count = _getter(f"matched_{self._peer_kind}s")(self.ref, handles, room)
            if count in ALREADY_DELETED:
                return []
            if check(count, f"matched {self._peer_kind}s") <= room:
                return handles[:count]
            room = count

    def peer(self, handle: int) -> Discovered | None:
        """One of the peers; None when it has gone."""
        address = _getter(f"matched_{self._peer_kind}_data")(self.ref, handle)
        if not address:
            return None
        try:
            return read_endpoint(address)
        finally:
            library().dds_builtintopic_free_endpoint(address)


class Writer(_Endpoint):
    """Writes bytes to a topic."""

    _peer_kind = "subscription"

    def __init__(self, publisher: int, topic: int, qos: DdsQos) -> None:
        with native(qos) as pointer:
            super().__init__(
                library().dds_create_writer(publisher, topic, pointer, None), "dds_create_writer"
            )

    def write(self, buffer: bytearray) -> None:
        """Write one sample; may block while a reliable reader has no room, without the GIL.

        Raises:
            RosError: the writer is gone, or the bytes are not of its type.
        """
        buffer += bytes(-len(buffer) % 4)
        # The first byte keeps the buffer's memory where it is during the call.
        first = ct.c_char.from_buffer(buffer)
        sample = Container(ct.addressof(first), len(buffer))
        check(library().dds_write(self.ref, ct.byref(sample)), "dds_write")

    def wait_for_acks(self, timeout_ns: int) -> bool:
        """Wait until every reliable reader has everything; False when the time is over."""
        code = library().dds_wait_for_acks(self.ref, timeout_ns)
        return code != TIMEOUT and check(code, "dds_wait_for_acks") == 0

    def assert_liveliness(self) -> None:
        """Say that the writer is alive, which writing a sample does too."""
        check(library().dds_assert_liveliness(self.ref), "dds_assert_liveliness")


class Reader(_Endpoint):
    """Takes bytes from a topic; one thread at a time."""

    _peer_kind = "publication"

    def __init__(self, subscriber: int, topic: int, qos: DdsQos) -> None:
        with native(qos) as pointer:
            super().__init__(
                library().dds_create_reader(subscriber, topic, pointer, None), "dds_create_reader"
            )
        self._serdatas = (ct.c_void_p * BATCH)()
        self._infos = (SampleInfo * BATCH)()
        self._calls = quick_calls()
        self._scratch = (ct.c_uint8 * VIEW_BYTES)()
        self._scratch_view = memoryview(self._scratch).cast("B")

    def take(self) -> list[Sample]:
        """Everything that has come; nothing when the reader was deleted."""
        samples: list[Sample] = []
        count = BATCH
        while count == BATCH:
            count = self._calls.dds_takecdr(self.ref, self._serdatas, BATCH, self._infos, ANY_STATE)
            if count in ALREADY_DELETED:
                break
            check(count, "dds_takecdr")
            for index in range(count):
                data, info = self._adopt(self._serdatas[index]), self._infos[index]
                # What only tells of a writer's end has no data.
                if info.valid_data:
                    samples.append(Sample(data, info.publication_handle, info.source_timestamp))
        return samples

    def _adopt(self, serdata: Any) -> memoryview:
        """The bytes of a reference to serialised data, which is given back."""
        size = self._calls.ddsi_serdata_size(serdata)
        if size > VIEW_BYTES:
            return _view(serdata, size)
        self._calls.ddsi_serdata_to_ser(serdata, 0, size, self._scratch)
        self._calls.ddsi_serdata_unref(serdata)
        return memoryview(self._scratch_view[:size].tobytes())


def _view(serdata: Any, size: int) -> memoryview:
    """The bytes themselves; the reference is given back with their last view."""
    calls = quick_calls()
    vector = IoVector()
    held = calls.ddsi_serdata_to_ser_ref(serdata, 0, size, ct.byref(vector))
    calls.ddsi_serdata_unref(serdata)
    owner = (ct.c_uint8 * size).from_address(vector.base)
    release = calls.ddsi_serdata_to_ser_unref
    weakref.finalize(owner, release, held, ct.byref(vector)).atexit = False
    return memoryview(owner).cast("B").toreadonly()
