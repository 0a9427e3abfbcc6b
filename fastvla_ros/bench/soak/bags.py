"""What can be read of a bag, down to its last message."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvla_core.errors import BagError

_ENDS = "fastvla.black_box.ends"
_REMOVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A bag that was read to its end.

    Attributes:
        promised: Messages that its metadata names; None where it has none.
        last_ns: Time of receipt of the newest one; 0 where there is none.
        ends: Goals that the black box kept it for: (goal's id, code).
        problems: In words.
    """

    messages: int
    promised: int | None
    last_ns: int
    ends: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether everything that was accepted is there."""
        return not self.problems and self.messages == self.promised


def read_to_the_end(path: Path) -> Readable:
    """Read every message of a bag, also of one that was never finished.

    Raises:
        BagError: nothing can be read.
    """
    # Named, not imported: reading bags belongs to the training room.
    reader = importlib.import_module("training.bags.reader")
    count = last_ns = 0
    with reader.open_bag(path) as bag:
        for message in bag.messages():
            count, last_ns = count + 1, max(last_ns, message.stamp_ns)
        ends: list[dict[str, Any]] = json.loads(bag.info.get(_ENDS, "[]"))
        return Readable(
            messages=count,
            promised=bag.metadata.get("message_count"),
            last_ns=last_ns,
            ends=tuple((end["goal"], end["code"]) for end in ends),
            problems=tuple(problem.message for problem in bag.problems),
        )


class BagLog:
    """Reads each bag of a folder once, before the oldest gives way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self.ends: set[tuple[str, str]] = set()
        self.read = 0

    def look(self) -> list[str]:
        """Read what is new; what is wrong with it, in words."""
        wrong = []
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for path in found:
            # One that is being written is looked at when it is whole.
            if not path.is_dir() or path.name in self._known or path.suffix == ".partial":
                continue
            self._known.add(path.name)
            wrong += self._read(path)
        return wrong

    def _read(self, path: Path) -> list[str]:
        try:
            bag = read_to_the_end(path)
        except (BagError, OSError) as error:
            # The oldest may just be giving way, file by file.
            time.sleep(_REMOVAL_S)
            return [f"bag {path.name}: {error}"] if path.is_dir() else []
        self.read += 1
        self.ends |= set(bag.ends)
        if bag.is_whole:
            return []
        return [
            f"bag {path.name}: {bag.messages} of {bag.promised} messages can be read; "
            f"{'; '.join(bag.problems)}"
        ]
