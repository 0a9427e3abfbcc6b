"""Results of evaluations, as lines of a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from training.evaluate import EvaluationResult


def task_width(tasks: Collection[str]) -> int:
    """Width of the table's first column."""
    return max(8, *map(len, tasks))


def head(width: int) -> str:
    """The table's first line."""
    return f"{'task':{width}} {'success':>13} {'95 % interval':>18} {'wrong object':>13}    time"


def line(result: EvaluationResult, *, width: int) -> str:
    """One result in the columns of `head`."""
    low, high = result.interval
    return (
        f"{result.task:{width}} {result.successes:4d}/{result.episodes:<4d}"
        f"{result.success_rate:5.1%} {low:8.1%} - {high:6.1%} {result.wrong_object:8d} "
        f"{result.mean_time_s:9.2f} s{_peaks(result)}"
    )


def row(result: EvaluationResult) -> dict[str, Any]:
    """One result for a JSON file, which knows no NaN."""
    values = dataclasses.asdict(result)
    return values if math.isfinite(result.mean_time_s) else {**values, "mean_time_s": None}


def _peaks(result: EvaluationResult) -> str:
    if result.peak_velocity is None or result.peak_acceleration is None:
        return ""
    return f"  peaks {result.peak_velocity:.0%} v, {result.peak_acceleration:.0%} a of the limits"
