"""One HTML page about a cache: what was recorded, how well, and what is to be learnt from it."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cache_files import Cache
from training.cache_shard import pack_jpeg
from training.cache_statistics import held_mask

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
figure { display: inline-block; margin: .3rem; }
figcaption { font-size: 12px; color: #555; }
img { max-width: 100%; }
"""
_PICTURES = 6
_COUNTS = {
    "dropped": "steps left out",
    "bad_messages": "messages refused",
    "late_messages": "messages twice or too late",
    "unused_messages": "messages that no step needed",
}


def write_card(cache: Cache, path: str | Path) -> Path:
    """Write the page; everything on it is in the one file."""
    sections = [
        _overview(cache),
        _cameras(cache),
        _ranges(cache),
        _histograms(cache),
        _lengths(cache),
        _counts(cache),
        _remarks(cache),
    ]
    title = html.escape(f"Data card: {cache.manifest.contract.name}")
    page = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(sections)}</body></html>\n"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _overview(cache: Cache) -> str:
    manifest = cache.manifest
    validation = float(manifest.settings.get("validation", 0.0))
    held = 0
    if cache.split_key is not None:
        held = int(held_mask(cache.split_key, share=validation).sum())
    rows = [
        ("robot contract", f"{manifest.contract.name} ({manifest.contract.hash()[:12]})"),
        ("sources", f"{len(manifest.entries)}, {len(manifest.skipped)} of them not used"),
        ("episodes", manifest.episodes),
        ("steps", f"{manifest.frames} at {manifest.rate_hz:g} Hz"),
        ("hours", f"{manifest.frames / manifest.rate_hz / 3600:.3f}"),
        ("held out from training", f"{held} steps ({validation:.0%} of the episodes, by hash)"),
        ("actions", manifest.settings.get("action", "as imported")),
        ("content", manifest.digest),
    ]
    tasks = Counter(e.instruction for e in manifest.episode_files)
    outcomes = Counter(e.outcome or "not recorded" for e in manifest.episode_files)
    return (
        _table(("", ""), rows)
        + "<h2>Tasks</h2>"
        + _table(("instruction", "episodes"), tasks.most_common())
        + _table(("outcome", "episodes"), outcomes.most_common())
    )


def _cameras(cache: Cache) -> str:
    parts = ["<h2>Cameras</h2>"]
    rows = np.unique(np.linspace(0, len(cache) - 1, _PICTURES).astype(int))
    for number, name in enumerate(cache.cameras):
        missing = int((~cache.present[:, number]).sum())
        shown = [row for row in rows if cache.present[row, number]]
        parts.append(f"<h3>{html.escape(name)}</h3><p>missing in {missing} steps</p>")
        for row in shown:
            data = base64.b64encode(pack_jpeg(cache.images[name][row])).decode()
            text = html.escape(cache.instructions[cache.instruction_id[row]])
            parts.append(
                f"<figure><img src='data:image/jpeg;base64,{data}' alt='{html.escape(name)}'>"
                f"<figcaption>step {row}: {text}</figcaption></figure>"
            )
    return "".join(parts)


def _ranges(cache: Cache) -> str:
    contract = cache.manifest.contract
    limits = {j.name: (j.lower, j.upper) for j in contract.joints}
    if contract.gripper is not None:
        limits[contract.gripper.name] = (contract.gripper.lower, contract.gripper.upper)
    rows = []
    for part, names in (("state", contract.state_names), ("action", contract.action_names)):
        values = cache.manifest.statistics.get(part, {})
        for column, name in enumerate(names):
            numbers = [
                f"{values[key][column]:.4f}" if key in values else ""
                for key in ("mean", "std", "min", "q01", "q50", "q99", "max")
            ]
            lower, upper = limits[name]
            rows.append((f"{part}: {name}", *numbers, f"{lower:g} to {upper:g}"))
    head = ("training split", "mean", "std", "min", "q01", "q50", "q99", "max", "limits")
    return "<h2>Joint ranges</h2><p>rad and m</p>" + _table(head, rows)


def _histograms(cache: Cache) -> str:
    """How targets differ from the state, per column: what a policy has to predict."""
    figure = _figure(height=2.2 * ((len(cache.manifest.contract.action_names) + 3) // 4))
    names = cache.manifest.contract.action_names
    moved = (np.asarray(cache.label) - np.asarray(cache.state)).astype(np.float64)
    for column, name in enumerate(names):
        axes: Any = figure.add_subplot((len(names) + 3) // 4, 4, column + 1)
        axes.hist(moved[:, column], bins=_bins(moved[:, column], width=1e-4))
        axes.set_title(name, fontsize=9)
        axes.set_yscale("log")
        axes.tick_params(labelsize=7)
    return "<h2>Actions: target minus state, per step</h2>" + _picture(figure)


def _lengths(cache: Cache) -> str:
    figure = _figure(height=2.5)
    axes: Any = figure.add_subplot(1, 2, 1)
    lengths = np.asarray([e.frames for e in cache.manifest.episode_files])
    lengths_s = lengths / cache.manifest.rate_hz
    axes.hist(lengths_s, bins=_bins(lengths_s, width=0.1))
    axes.set_xlabel("episode [s]")
    axes = figure.add_subplot(1, 2, 2)
    inside: NDArray[np.bool_] = np.diff(np.asarray(cache.episode_start)) == 0
    steps_ms = np.diff(np.asarray(cache.stamp_ns))[inside] / 1e6
    if len(steps_ms):
        axes.hist(steps_ms, bins=_bins(steps_ms, width=0.1))
    axes.set_yscale("log")
    axes.set_xlabel("time between two steps [ms]")
    return "<h2>Episodes and rates</h2>" + _picture(figure)


def _counts(cache: Cache) -> str:
    parts = ["<h2>What was not used</h2>"]
    for key, title in _COUNTS.items():
        total = sum((e.counted(key) for e in cache.manifest.entries), Counter())
        if total:
            parts.append(_table((title, "number"), total.most_common()))
    return "".join(parts) if parts[1:] else ""


def _remarks(cache: Cache) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in cache.manifest.remarks)
    return f"<h2>Remarks</h2><ul>{lines}</ul>" if lines else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _bins(values: NDArray[Any], *, width: float) -> NDArray[np.float64]:
    """Edges over all values; at least `width` around values that are all the same."""
    low, high = float(values.min()), float(values.max())
    middle, half = (low + high) / 2, max((high - low) / 2, width / 2)
    return np.linspace(middle - half, middle + half, 61)


def _figure(*, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _picture(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' alt=''>"
