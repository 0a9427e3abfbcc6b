"""Raw CDR through the wheel's libddsc, with the GIL released.

The binding's own write holds the GIL, so a stopped reliable reader would freeze the process; its
serialiser takes 20 ms for an image. Calling `dds_write` and `dds_take` through ctypes relies on
the layout of the binding's sample container (pointer, size), which `participant.self_test` checks.
"""

from __future__ import annotations

import ctypes as ct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from cyclonedds.core import DDSException, Entity
from cyclonedds.internal import DDS, dds_c_t

from fastvla_core.errors import RosError

BATCH = 16
# Below this size a copy is cheaper than a finaliser.
VIEW_BYTES = 4096
ALREADY_DELETED = (-3, -9)
INFINITE = 2**63 - 1


class Container(ct.Structure):
    """The sample as the binding's type sees it: serialised bytes and their number."""

    _fields_ = [("data", ct.c_void_p), ("size", ct.c_size_t)]


@dataclass(frozen=True, slots=True)
class Sample:
    """Received bytes, who wrote them and when (ns since the epoch, writer's clock)."""

    data: memoryview
    publication_handle: int
    source_stamp_ns: int


@cache
def library() -> ct.CDLL:
    """A handle of our own on the loaded libddsc: argument types are kept per handle."""
    lib = ct.CDLL(DDS._dll_handle._name)  # pyright: ignore[reportAttributeAccessIssue]
    entity, pointer, size = ct.c_int32, ct.c_void_p, ct.c_size_t
    signatures = {
        "dds_write": [entity, pointer],
        "dds_take": [entity, pointer, pointer, size, ct.c_uint32],
        "dds_delete": [entity],
        "dds_create_waitset": [entity],
        "dds_waitset_attach": [entity, entity, ct.c_ssize_t],
        "dds_waitset_detach": [entity, entity],
        "dds_waitset_wait": [entity, pointer, size, ct.c_int64],
        "dds_set_status_mask": [entity, ct.c_uint32],
        "dds_take_status": [entity, pointer, ct.c_uint32],
        "dds_assert_liveliness": [entity],
    }
    for name, arguments in signatures.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, ct.c_int32
    lib.dds_free.argtypes, lib.dds_free.restype = [pointer], None
    return lib


def check(code: int, what: str) -> int:
    """Raise RosError when a C call returned an error code."""
    if code < 0:
        raise RosError(f"CycloneDDS: {what} failed with code {code}")
    return code


def write(entity: Entity, buffer: bytearray) -> None:
    """Write one sample; may block while a reliable reader has no room, without the GIL.

    Raises:
        RosError: the writer is gone, or the bytes are not of its type.
    """
    buffer += bytes(-len(buffer) % 4)
    # The first byte keeps the buffer's memory where it is during the call.
    first = ct.c_char.from_buffer(buffer)
    sample = Container(ct.addressof(first), len(buffer))
    check(library().dds_write(entity._ref, ct.byref(sample)), f"write to {entity!r}")


def take(entity: Entity) -> list[Sample]:
    """Take up to BATCH samples; an empty list when there is none or the reader was deleted."""
    containers = (Container * BATCH)()
    start, stride = ct.addressof(containers), ct.sizeof(Container)
    pointers = (ct.c_void_p * BATCH)(*(start + i * stride for i in range(BATCH)))
    infos = (dds_c_t.sample_info * BATCH)()
    count = library().dds_take(entity._ref, pointers, infos, BATCH, BATCH)
    if count in ALREADY_DELETED:
        return []
    check(count, f"take from {entity!r}")
    samples = []
    for container, info in zip(containers[:count], infos[:count], strict=True):
        data = _adopt(container)
        if info.valid_data:
            samples.append(Sample(data, info.publication_handle, info.source_timestamp))
    return samples


def _adopt(container: Container) -> memoryview:
    """The container's bytes; its memory is freed at once or with the last view of them."""
    free = library().dds_free
    if container.size < VIEW_BYTES:
        copy = ct.string_at(container.data, container.size) if container.data else b""
        free(container.data)
        return memoryview(copy)
    owner = (ct.c_uint8 * container.size).from_address(container.data)
    weakref.finalize(owner, free, container.data).atexit = False
    return memoryview(owner).cast("B").toreadonly()


def assert_liveliness(writer: Entity) -> None:
    """Say that a writer is alive, which writing a sample does too."""
    check(library().dds_assert_liveliness(writer._ref), f"liveliness of {writer!r}")


def delete(entity: Entity) -> None:
    """Delete a DDS entity now instead of when Python's last reference goes."""
    known: dict[int, object] = Entity._entities  # pyright: ignore[reportAssignmentType]
    if known.pop(entity._ref, None) is not None:
        library().dds_delete(entity._ref)


def peers(list_handles: Callable[[], list[int]]) -> list[int]:
    """Handles of matched endpoints, from the binding's `get_matched_*`.

    The binding counts them, then lists them: one that comes in between is an IndexError there. An
    entity that another thread has just deleted has none.
    """
    while True:
        try:
            return list_handles()
        except IndexError:
            continue
        except DDSException as error:
            if error.code in ALREADY_DELETED:
                return []
            raise
