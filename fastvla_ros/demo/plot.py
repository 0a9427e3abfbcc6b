"""`demo.png`: commanded and measured joints, and the inference latency, over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_ros.demo.history import History

_MEASURED, _COMMANDED, _LATENCY = "#1f5fa8", "#e8772e", "#3b7a57"
_OUTCOME_COLOURS = {"success": "#2e8b57", "failure": "#c0392b"}
_COLUMNS = 2
_PAUSE_S = 0.4
# A joint that stands still must not look as if it trembled.
_LEAST_SPAN = {"rad": 0.1, "m": 0.01}


def plot_history(history: History, path: Path) -> None:
    """Write the picture of a run to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-(len(history.names) + 1) // _COLUMNS)
    figure = Figure(figsize=(13, 2.25 * rows + 0.9), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False).T.ravel()
    for column, name in enumerate(history.names):
        _plot_joint(axes[column], history, column, name)
    _plot_latency(axes[len(history.names)], history)
    for axis in axes[len(history.names) + 1 :]:
        axis.set_visible(False)
    for axis in axes:
        _mark_goals(axis, history)
    for axis in axes.reshape(_COLUMNS, rows)[:, -1]:
        axis.set_xlabel("time [s]")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(_title(history), x=0.01, ha="left", fontsize=11)
    figure.savefig(path)


def _title(history: History) -> str:
    goals = (f"{i}. {g.task}: {g.outcome}" for i, g in enumerate(history.goals, 1))
    return "     ".join(goals)


def _plot_joint(axis: Any, history: History, column: int, name: str) -> None:
    for series, colour, width, label in (
        (history.measured, _MEASURED, 1.5, "measured"),
        (history.commanded, _COMMANDED, 1.1, "commanded"),
    ):
        times_s, values = _with_gaps(*series.arrays())
        if times_s.size:
            style = "-" if label == "measured" else "--"
            axis.plot(times_s, values[:, column], style, color=colour, lw=width, label=label)
    unit = "m" if name == history.names[-1] and "gripper" in name else "rad"
    axis.set_ylabel(f"{name} [{unit}]")
    _widen(axis, at_least=_LEAST_SPAN[unit])
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)


def _with_gaps(
    times_s: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Between two goals nothing was commanded, so nothing is drawn."""
    pauses = np.flatnonzero(np.diff(times_s) > _PAUSE_S) + 1
    return np.insert(times_s, pauses, np.nan), np.insert(values, pauses, np.nan, axis=0)


def _widen(axis: Any, *, at_least: float) -> None:
    low, high = axis.get_ylim()
    if high - low < at_least:
        middle = (low + high) / 2
        axis.set_ylim(middle - at_least / 2, middle + at_least / 2)


def _plot_latency(axis: Any, history: History) -> None:
    times_s, values = history.inference.arrays()
    if times_s.size:
        latency_ms = values[:, 0] * 1e3
        axis.plot(times_s, latency_ms, ".", color=_LATENCY, ms=5)
        for share, style in ((50, "-"), (99, ":")):
            level = float(np.percentile(latency_ms, share))
            axis.axhline(level, color=_LATENCY, ls=style, lw=1, label=f"p{share} {level:.0f} ms")
        axis.legend(loc="upper right", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("inference [ms]")
    axis.grid(alpha=0.25)


def _mark_goals(axis: Any, history: History) -> None:
    for number, goal in enumerate(history.goals, 1):
        colour = _OUTCOME_COLOURS.get(goal.outcome, "#888888")
        axis.axvspan(goal.begin_s, goal.end_s, color=colour, alpha=0.08, lw=0)
        axis.annotate(
            str(number), (goal.begin_s, 1), xycoords=("data", "axes fraction"),
            xytext=(3, -11), textcoords="offset points", fontsize=8, color=colour,
        )  # fmt: skip
