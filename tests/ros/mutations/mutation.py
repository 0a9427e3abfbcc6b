"""A behaviour taken away: one text of the source replaced, in a copy, and the test that sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
TABLE = Path(__file__).with_name("table.yaml")
_TIMEOUT_S = 240
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True)
class Mutation:
    """One row of the table.

    Attributes:
        number: Of the behaviour, as in `docs/reliability.md`.
        behaviour: In a few words.
        file: Where `old`, which is there once, becomes `new`.
        test: Passes as it is and fails in the copy; a node id.
    """

    number: int
    behaviour: str
    file: str
    old: str
    new: str
    test: str

    def mutated_text(self) -> str:
        """The file with the behaviour taken away.

        Raises:
            ValueError: `old` is not there, or more than once.
        """
        text = (ROOT / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has {count} times, expected once:\n{self.old}")
        return text.replace(self.old, self.new)


def load_table() -> list[Mutation]:
    """Every row, in the order of the behaviours."""
    return [Mutation(**row) for row in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def make_copy(mutation: Mutation, folder: Path) -> None:
    """A tree in `folder` that is the repository but for the one file; the rest is linked."""
    text = mutation.mutated_text()
    *parents, name = Path(mutation.file).parts
    source, copy = ROOT, folder
    for part in (*parents, name):
        for entry in source.iterdir():
            if entry.name not in (part, "__pycache__") and not entry.name.startswith("."):
                (copy / entry.name).symlink_to(entry)
        source, copy = source / part, copy / part
        if part != name:
            copy.mkdir()
    copy.write_text(text, encoding="utf-8")


def passes(test: str, *, root: Path) -> bool:
    """Run one test of a tree in a process of its own; one that hangs does not pass.

    Raises:
        RuntimeError: it neither passed nor failed: it could not be collected, for example.
    """
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-m", "", test]
    try:
        ended = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode not in (_PASSED, _FAILED):
        raise RuntimeError(f"{test} in {root}:\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}")
    return ended.returncode == _PASSED
