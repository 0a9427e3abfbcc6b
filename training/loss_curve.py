"""The loss curve of a run, for people and for programs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.trainer_state import LossPoint


def write_curve(curve: Sequence[LossPoint], folder: Path) -> None:
    """Write `loss.csv` and `loss.png`: training and validation loss over steps."""
    with (folder / "loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f.name for f in dataclasses.fields(LossPoint)])
        writer.writerows(dataclasses.astuple(p) for p in curve)
    _plot(curve, folder / "loss.png")


def _plot(curve: Sequence[LossPoint], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.plot([p.step for p in curve], [p.loss for p in curve], label="training", linewidth=1)
    held = [(p.step, p.validation_loss) for p in curve if p.validation_loss is not None]
    if held:
        axes.plot(*zip(*held), label="validation", marker=".")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
