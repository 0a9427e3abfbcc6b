"""`fastvla bench soak`: the parts that were asked for, one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fastvla_ros.bench.soak.violations import Violations

Part = Callable[[], tuple[dict[str, Any], Violations]]


def measure(
    *,
    minutes: float,
    goals: int,
    malformed: int,
    policy: str,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Soak for `minutes`, then `goals` with faults, then so many malformed messages; 0 is none.

    Args:
        policy: Of the soak: a checkpoint, or `fixed`.
        seed: Gives the same goals, faults and messages again.
        say: Prints a line for the user.

    Returns:
        The figures of each part, and `violations`, which is empty when all is well.
    Raises:
        FastVLAError: the graph does not come up.
    """
    report: dict[str, Any] = {"seed": seed, "violations": []}
    parts = _parts(minutes=minutes, goals=goals, malformed=malformed, policy=policy, seed=seed)
    for name, part in parts:
        say(f"\n{name}")
        figures, violations = part()
        report[name] = figures
        report["violations"] += [found.to_dict() for found in violations.found]
        for line in _lines(figures):
            say(line)
        say(f"  {len(violations.found)} violations")
    return report


def _lines(figures: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in figures.items():
        if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
            lines += [f"  {key}:", *(f"    {name}: {_words(part)}" for name, part in value.items())]
        else:
            lines.append(f"  {key:24} {_words(value)}")
    return lines


def _words(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{key} {part}" for key, part in value.items() if key != "series")


def _parts(
    *, minutes: float, goals: int, malformed: int, policy: str, seed: int
) -> list[tuple[str, Part]]:
    def of(module: str) -> Any:
        return importlib.import_module(f"fastvla_ros.bench.soak.{module}")

    parts: list[tuple[str, Part]] = []
    if minutes:
        parts.append(
            ("soak", lambda: of("endurance").soak(minutes=minutes, policy=policy, seed=seed))
        )
    if goals:
        parts.append(("faults", lambda: of("faults").run_faults(goals=goals, seed=seed)))
    if malformed:
        parts.append(
            ("malformed", lambda: of("malformed").run_malformed(messages=malformed, seed=seed))
        )
    return parts
