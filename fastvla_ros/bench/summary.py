"""Several runs as medians and spreads, and those as a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# summary[measurement][pair][figure] = {"median", "min", "max"}
Summary = dict[str, dict[str, dict[str, dict[str, float]]]]


def summarise(samples: list[dict[str, Any]]) -> Summary:
    """Median, min and max of every figure over the runs."""
    collected: dict[str, dict[str, dict[str, list[float]]]] = {}
    for sample in samples:
        pairs = collected.setdefault(sample["measurement"], {})
        figures = pairs.setdefault(sample["pair"], {})
        for figure, value in sample["figures"].items():
            figures.setdefault(figure, []).append(value)
    return {
        name: {
            pair: {figure: _spread(values) for figure, values in figures.items()}
            for pair, figures in pairs.items()
        }
        for name, pairs in collected.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def table(summary: Summary) -> list[str]:
    """Lines of the comparison: a row per figure, a column per pair, medians (min..max)."""
    lines: list[str] = []
    for name, pairs in summary.items():
        lines += ["", f"{name:34}" + "".join(f"{pair:>26}" for pair in pairs)]
        for figure in next(iter(pairs.values())):
            cells = (_cell(figures[figure]) for figures in pairs.values())
            lines.append(f"  {figure:32}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def _cell(spread: dict[str, float]) -> str:
    median, low, high = (_short(spread[key]) for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low}..{high})"


def _short(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) and value == int(value) else f"{value:.3g}"
