"""The table of docs/training_memory.md: `python -m training.memory_table` writes it anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.memory import MemoryEstimate
from training.memory_plan import plan_memory
from training.recipe import Recipe, load_recipe

RECIPES = tuple(
    f"{policy}_{size}gb"
    for policy in ("smolvla", "pi0", "pi05", "pi0fast")
    for size in (16, 24, 80)
)
_PLANNED = ("contract", "policy", "new", "policy_options", "training", "gpu_gb")
_DOCS = Path(__file__).parents[1] / "docs"
_ROWS = _DOCS / "results" / "training_memory.json"
_PAGE = _DOCS / "training_memory.md"
_BEGIN, _END = "<!-- made by `python -m training.memory_table` -->", "<!-- until here -->"


def stored_rows() -> dict[str, dict[str, Any]]:
    """What was written last, by recipe."""
    return json.loads(_ROWS.read_text())


def as_stored(recipe: Recipe) -> Any:
    """What a plan depends on in a recipe, as JSON gives it back."""
    whole = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return {name: whole[name] for name in _PLANNED}


def row_of(recipe: Recipe) -> dict[str, Any]:
    """What is planned for a recipe, and the recipe that it was planned for."""
    estimate = plan_memory(recipe)
    return {
        **dataclasses.asdict(estimate),
        "total": estimate.total,
        "recipe": as_stored(recipe),
    }


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows in Markdown; all numbers in GB (10^9 bytes)."""
    # On one GPU nothing is in parts.
    others = ("part", "gathered")
    kinds = [f.name for f in dataclasses.fields(MemoryEstimate) if f.name not in others]
    head = ["recipe", *kinds, "samples at once", "with 15 %", "GPU"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, row in rows.items():
        numbers = [f"{row[kind] / 1e9:.2f}" for kind in kinds]
        gpu = f"{row['recipe']['gpu_gb']:g}"
        cells = [name, *numbers, str(row["part"]), f"**{row['total'] / 1e9:.1f}**", gpu]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Plan every recipe; write the numbers and the table in the page."""
    rows = {name: row_of(load_recipe(name)) for name in RECIPES}
    _ROWS.write_text(json.dumps(rows, indent=1) + "\n")
    page = _PAGE.read_text()
    before, after = page[: page.index(_BEGIN)], page[page.index(_END) :]
    _PAGE.write_text(f"{before}{_BEGIN}\n{table(rows)}\n{after}")


if __name__ == "__main__":
    main()
