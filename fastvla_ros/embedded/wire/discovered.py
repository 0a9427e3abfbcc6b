"""What discovery tells: the endpoints and participants of the domain, from the builtin topics.

Source: dds/dds.h (dds_builtintopic_participant_t, dds_builtintopic_endpoint_t).
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastvla_ros.embedded.wire.dds_qos import DdsQos, read_qos, read_user_data
from fastvla_ros.embedded.wire.libddsc import ALIVE, SampleInfo, check, library

BATCH = 64
GUID_BYTES = 16
# DDS_MIN_PSEUDO_HANDLE and what follows: participants, publications, subscriptions.
PARTICIPANTS, WRITERS, READERS = 0x7FFF0001, 0x7FFF0003, 0x7FFF0004

T = TypeVar("T")


class _Participant(ct.Structure):
    _fields_ = [("guid", ct.c_uint8 * GUID_BYTES), ("qos", ct.c_void_p)]


class _Endpoint(ct.Structure):
    _fields_ = [
        ("guid", ct.c_uint8 * GUID_BYTES),
        ("participant", ct.c_uint8 * GUID_BYTES),
        ("participant_handle", ct.c_uint64),
        ("topic", ct.c_char_p),
        ("type_name", ct.c_char_p),
        ("qos", ct.c_void_p),
    ]


@dataclass(frozen=True, slots=True)
class Discovered:
    """A reader or a writer anywhere on the graph; `topic` and `type_name` are DDS names."""

    guid: bytes
    participant: bytes
    topic: str
    type_name: str
    qos: DdsQos


def read_endpoint(address: int) -> Discovered:
    """The endpoint that a `dds_builtintopic_endpoint_t` describes."""
    found = _Endpoint.from_address(address)
    return Discovered(
        bytes(found.guid),
        bytes(found.participant),
        found.topic.decode("utf-8", "replace"),
        found.type_name.decode("utf-8", "replace"),
        read_qos(found.qos),
    )


def read_participant(address: int) -> bytes:
    """The USER_DATA in a `dds_builtintopic_participant_t`."""
    return read_user_data(_Participant.from_address(address).qos)


class BuiltinReader(Generic[T]):
    """Takes what has changed on one of the builtin topics."""

    def __init__(self, participant: int, topic: int, read: Callable[[int], T]) -> None:
        self.ref = check(
            library().dds_create_reader(participant, topic, None, None), "a builtin reader"
        )
        self._read = read

    def take(self) -> list[tuple[bytes, T | None]]:
        """GUIDs, each with its description; None: it has gone."""
        taken: list[tuple[bytes, T | None]] = []
        infos = (SampleInfo * BATCH)()
        count = BATCH
        while count == BATCH:
            # Null pointers ask for loans.
            pointers: Any = (ct.c_void_p * BATCH)()
            count = library().dds_take(self.ref, pointers, infos, BATCH, BATCH)
            check(count, "take from a builtin topic")
            for address, info in zip(pointers[:count], infos[:count], strict=True):
                # Both structs begin with the GUID.
                guid = ct.string_at(address, GUID_BYTES)
                alive = info.instance_state == ALIVE
                taken.append((guid, self._read(address) if alive else None))
            if count:
                library().dds_return_loan(self.ref, pointers, count)
        return taken
