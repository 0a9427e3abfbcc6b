"""What a doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, how it stands, and how to mend it."""

    name: str
    level: Level
    detail: str
    mend: str = ""


def ok(name: str, detail: str) -> Finding:
    """Nothing to mend."""
    return Finding(name=name, level="ok", detail=detail)


def warning(name: str, detail: str, *, mend: str) -> Finding:
    """It runs, but not as well as it should."""
    return Finding(name=name, level="warning", detail=detail, mend=mend)


def error(name: str, detail: str, *, mend: str) -> Finding:
    """It cannot work like this."""
    return Finding(name=name, level="error", detail=detail, mend=mend)
