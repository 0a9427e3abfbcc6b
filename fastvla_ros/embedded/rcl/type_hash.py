"""Hashes of type definitions, as endpoints announce them. Source: REP 2016."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

ANNOUNCED = re.compile(r"RIHS(\d{2})_([0-9a-f]{64})\Z")


@dataclass(frozen=True)
class TypeHash:
    """A hash and the version of its rules; -1 when none was announced."""

    _TYPE_HASH_SIZE: ClassVar[int] = 32

    version: int = -1
    value: bytes = bytes(_TYPE_HASH_SIZE)

    def __str__(self) -> str:
        if self.version <= 0 or len(self.value) != self._TYPE_HASH_SIZE:
            return "INVALID"
        return f"RIHS{self.version:02}_{self.value.hex()}"


def parse_type_hash(text: str) -> TypeHash:
    """The hash of a text such as `RIHS01_...`; an invalid one for any other text."""
    found = ANNOUNCED.match(text)
    return TypeHash() if found is None else TypeHash(int(found[1]), bytes.fromhex(found[2]))
