"""What somebody else sent, in messages for people: enough to recognise it, never all of it."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST, _MOST = 60, 12


def clipped(text: str) -> str:
    """A text of any length and content, fit for a line of a log."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown}... ({len(text)} characters)"


def listed(names: Sequence[str]) -> str:
    """Names with commas, the first of very many."""
    shown = ", ".join(clipped(name) for name in names[:_MOST])
    return shown if len(names) <= _MOST else f"{shown} and {len(names) - _MOST} more"
