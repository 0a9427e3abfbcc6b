"""The QoS of an endpoint as DDS has it, in and out of CycloneDDS's `dds_qos_t`.

Source: dds/ddsc/dds_public_qos.h and dds_public_qosdefs.h.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastvla_ros.embedded.wire.libddsc import INFINITE_NS, library

_KEEP_LAST, _KEEP_ALL = 0, 1
_BEST_EFFORT, _RELIABLE = 0, 1
_VOLATILE, _TRANSIENT_LOCAL = 0, 1
_AUTOMATIC, _MANUAL_BY_TOPIC = 0, 2
_IGNORE_OWN_PARTICIPANT = 1
_XCDR1 = 0
_UNLIMITED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class DdsQos:
    """What a reader or a writer offers or asks for.

    Args:
        depth: Samples that are kept; None is all of them. It does not cross the wire.
        by_topic: Liveliness MANUAL_BY_TOPIC instead of AUTOMATIC.
        ignore_own: A reader gets nothing from its own participant.
        user_data: ROS's `key=value;` items.
    """

    reliable: bool
    depth: int | None = None
    transient_local: bool = False
    deadline_ns: int = INFINITE_NS
    lifespan_ns: int = INFINITE_NS
    by_topic: bool = False
    lease_ns: int = INFINITE_NS
    ignore_own: bool = False
    user_data: bytes = b""


@contextmanager
def native(qos: DdsQos) -> Iterator[int]:
    """A `dds_qos_t` that lives as long as the block."""
    pointer = library().dds_create_qos()
    try:
        _set_all(pointer, qos)
        yield pointer
    finally:
        library().dds_delete_qos(pointer)


@contextmanager
def native_user_data(user_data: bytes) -> Iterator[int]:
    """A `dds_qos_t` of a participant."""
    pointer = library().dds_create_qos()
    try:
        library().dds_qset_userdata(pointer, user_data, len(user_data))
        yield pointer
    finally:
        library().dds_delete_qos(pointer)


def _set_all(pointer: int, qos: DdsQos) -> None:
    lib = library()
    history = (_KEEP_ALL, _UNLIMITED) if qos.depth is None else (_KEEP_LAST, qos.depth)
    lib.dds_qset_history(pointer, *history)
    lib.dds_qset_reliability(pointer, _RELIABLE if qos.reliable else _BEST_EFFORT, INFINITE_NS)
    lib.dds_qset_durability(pointer, _TRANSIENT_LOCAL if qos.transient_local else _VOLATILE)
    if qos.transient_local:
        # What a writer keeps for late readers: CycloneDDS looks here for it.
        lib.dds_qset_durability_service(pointer, 0, *history, *[_UNLIMITED] * 3)
    lib.dds_qset_deadline(pointer, qos.deadline_ns)
    lib.dds_qset_lifespan(pointer, qos.lifespan_ns)
    lib.dds_qset_liveliness(pointer, _MANUAL_BY_TOPIC if qos.by_topic else _AUTOMATIC, qos.lease_ns)
    if qos.ignore_own:
        lib.dds_qset_ignorelocal(pointer, _IGNORE_OWN_PARTICIPANT)
    lib.dds_qset_userdata(pointer, qos.user_data, len(qos.user_data))
    lib.dds_qset_data_representation(pointer, 1, ct.byref(ct.c_int16(_XCDR1)))
    lib.dds_qset_writer_data_lifecycle(pointer, False)


def read_qos(pointer: int) -> DdsQos:
    """What discovery tells of an endpoint."""
    lib = library()
    kind, duration = ct.c_int(), ct.c_int64(INFINITE_NS)
    reliable = transient_local = by_topic = False
    if lib.dds_qget_reliability(pointer, ct.byref(kind), ct.byref(duration)):
        reliable = kind.value == _RELIABLE
    if lib.dds_qget_durability(pointer, ct.byref(kind)):
        transient_local = kind.value == _TRANSIENT_LOCAL
    lease = ct.c_int64(INFINITE_NS)
    if lib.dds_qget_liveliness(pointer, ct.byref(kind), ct.byref(lease)):
        by_topic = kind.value == _MANUAL_BY_TOPIC
    deadline, lifespan = ct.c_int64(INFINITE_NS), ct.c_int64(INFINITE_NS)
    lib.dds_qget_deadline(pointer, ct.byref(deadline))
    lib.dds_qget_lifespan(pointer, ct.byref(lifespan))
    return DdsQos(
        reliable=reliable,
        transient_local=transient_local,
        deadline_ns=deadline.value,
        lifespan_ns=lifespan.value,
        by_topic=by_topic,
        lease_ns=lease.value,
        user_data=read_user_data(pointer),
    )


def read_user_data(pointer: int) -> bytes:
    """The USER_DATA of a `dds_qos_t`."""
    value, size = ct.c_void_p(), ct.c_size_t()
    if not library().dds_qget_userdata(pointer, ct.byref(value), ct.byref(size)) or not value:
        return b""
    try:
        return ct.string_at(value, size.value)
    finally:
        library().dds_free(value)


def user_data_items(user_data: bytes) -> dict[str, str]:
    """The `key=value;` items that ROS puts into USER_DATA."""
    text = user_data.decode("ascii", "replace")
    return dict(item.split("=", 1) for item in text.split(";") if "=" in item)
