"""The picture of `fastvla bench cost`: measured, fitted and at best, one panel per size.

python -m training.bench.cost_picture docs/results/cost.json docs/cost.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_AXES = {
    "views": "views",
    "side": "image side [px]",
    "words": "prompt tokens",
    "chunk": "action steps",
    "steps": "flow steps",
    "batch": "batch",
}


def draw(cost: dict[str, Any], path: Path) -> None:
    """Draw what `cost.run_cost` returned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(2, 3)
    points = [{**p["shape"], **p} for p in cost["points"]]
    centre = points[0]
    for panel, (axis, label) in zip(panels.flat, _AXES.items()):
        others = [name for name in _AXES if name != axis]
        line = [p for p in points if all(p[name] == centre[name] for name in others)]
        line.sort(key=lambda p: p[axis])
        x = [p[axis] for p in line]
        panel.plot(x, [p["p50_ms"] for p in line], "o", label="measured")
        panel.plot(x, [p["fitted_ms"] for p in line], "-", label="cost model")
        panel.plot(x, [p["floor_ms"] for p in line], "--", label="roofline")
        panel.set(xlabel=label, ylabel="ms", xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
    panels.flat[0].legend()
    figure.suptitle(f"{cost['policy']}, {cost['engine']}, {cost['device']}: one chunk")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["cost"], Path(sys.argv[2]))
