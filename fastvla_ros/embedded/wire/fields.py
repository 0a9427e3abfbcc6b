"""How the type of a field is written down: plain data, so that it can be kept in a file."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any


class Kind(IntEnum):
    """The first item of a field's type; the numbers are rosbags'."""

    BASE = 1
    NAME = 2
    ARRAY = 3
    SEQUENCE = 4


# (BASE, (name, bound)), (NAME, type), or (ARRAY or SEQUENCE, (item, size)).
FieldType = Any

# What stands in a message without fields: DDS has no empty structures.
PLACEHOLDER = "structure_needs_at_least_one_member"


def nested_names(desc: FieldType) -> Iterator[str]:
    """The message type that a field refers to, if it does."""
    kind, detail = desc
    if kind == Kind.NAME:
        yield detail
    elif kind != Kind.BASE:
        yield from nested_names(detail[0])
