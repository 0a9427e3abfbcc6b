"""What should not have happened, and when."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken expectation.

    Attributes:
        part: `soak`, `faults` or `malformed`.
        what: In words.
        seed: Gives the same goal, fault or message again.
        at_s: Since the part began.
        where: The goal, process or message that it is about.
    """

    part: str
    what: str
    seed: int
    at_s: float
    where: str

    def __str__(self) -> str:
        return f"{self.part}, {self.at_s:.1f} s, {self.where} (seed {self.seed}): {self.what}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {**asdict(self), "at_s": round(self.at_s, 3)}


class Violations:
    """Collects the violations of one part."""

    def __init__(self, part: str, *, seed: int) -> None:
        self.part, self.seed = part, seed
        self.found: list[Violation] = []
        self._begin_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the part began."""
        return time.monotonic() - self._begin_s

    def add(self, what: str, *, where: str) -> None:
        """Note one, now, and say so: the run may go on for an hour."""
        violation = Violation(
            part=self.part, what=what, seed=self.seed, at_s=self.elapsed_s, where=where
        )
        self.found.append(violation)
        print(f"VIOLATION {violation}", file=sys.stderr, flush=True)

    def expect(self, holds: bool, what: str, *, where: str) -> bool:
        """Note one unless it `holds`, which is returned."""
        if not holds:
            self.add(what, where=where)
        return holds
