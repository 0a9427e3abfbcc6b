"""Names of weights: a table of a checkpoint's names and our own, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

# Of checkpoints from before there were processor files.
OLD_STATISTICS = r"(un)?normalize_\w+\.buffer_.*"


@dataclass(frozen=True)
class KeyTable:
    """A renaming of modules.

    Attributes:
        pairs: A checkpoint's module and ours. "{}" stands for a number, such as a layer's; the
            weights of a module and of those below it follow it.
        spellings: (pattern, replacement) for `re.sub`, applied in order to a checkpoint's names
            first: how older and other tools wrote the same.
        unused: Patterns of the checkpoint's names that the network does not need; they are kept
            for saving.
        dropped: Patterns of what belongs elsewhere by now and is not kept.
    """

    pairs: tuple[tuple[str, str], ...]
    spellings: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def normalized(self, stored: str) -> str:
        """A checkpoint's name in the spelling of `pairs`."""
        for pattern, replacement in self.spellings:
            stored = re.sub(pattern, replacement, stored)
        return stored

    def own(self, stored: str) -> str | None:
        """Our name of a checkpoint's (normalized) name; None where the table has none."""
        return _renamed(stored, self._to_own)

    def stored(self, own: str) -> str:
        """A checkpoint's name of ours; `own` itself where the table has none."""
        return _renamed(own, self._to_stored) or own

    def is_unused(self, stored: str) -> bool:
        """Whether the network does without this (normalized) name."""
        return any(re.fullmatch(pattern, stored) for pattern in self.unused)

    def is_dropped(self, stored: str) -> bool:
        """Whether this (normalized) name is of no use any more."""
        return any(re.fullmatch(pattern, stored) for pattern in self.dropped)

    @cached_property
    def _to_own(self) -> Mapping[re.Pattern[str], str]:
        return _compiled(self.pairs)

    @cached_property
    def _to_stored(self) -> Mapping[re.Pattern[str], str]:
        return _compiled((own, stored) for stored, own in self.pairs)


def _compiled(pairs: Iterable[tuple[str, str]]) -> dict[re.Pattern[str], str]:
    # The longest first: what stands below a module may have a line of its own.
    ordered = sorted(pairs, key=lambda pair: -len(pair[0]))
    return {
        re.compile(re.escape(a).replace(r"\{\}", r"(\d+)") + r"(?=\.|$)"): b for a, b in ordered
    }


def _renamed(name: str, table: Mapping[re.Pattern[str], str]) -> str | None:
    for pattern, template in table.items():
        if found := pattern.match(name):
            return template.format(*found.groups()) + name[found.end() :]
    return None
