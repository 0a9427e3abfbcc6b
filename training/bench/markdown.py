"""The tables of docs/benchmarks.md from what `fastvla bench policy cost train --json FILE` wrote.

python -m training.bench.markdown FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def tables(report: Mapping[str, Any]) -> Iterator[str]:
    """Every table that the report has numbers for."""
    machine = report["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}"
    for name, race in report.get("policy", {}).get("races", {}).items():
        yield from _race(name, race)
    if "cost" in report:
        yield from _cost(report["cost"])
    if "qlora" in report:
        yield from _qlora(report["qlora"])


def _race(name: str, race: Mapping[str, Any]) -> Iterator[str]:
    if "why" in race:
        yield f"\n**{name}**: not measured: {race['why']}"
        return
    yield f"\n**{name}**, {race['parameters'] / 1e6:.0f}M weights: {race['shape']}\n"
    yield from _head(
        "contender", "p50 ms", "p99 ms", "p99/p50", "n", "peak MB", "of the floor", "cosine"
    )
    for row in race["rows"]:
        if row["p50_ms"] is None:
            yield _line(row["contender"], f"not measured: {row['why']}", *[""] * 6)
            continue
        yield _line(
            row["contender"],
            f"{row['p50_ms']:.4g}",
            f"{row['p99_ms']:.4g}",
            f"{row['p99_over_p50']:.2f}",
            str(row["replays"]),
            f"{row['peak_mb']:.0f}",
            "" if row["floor_share"] is None else f"{row['floor_share']:.0%}",
            f"{row['worst_cosine']:.5f}",
        )


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n**{cost['policy']}**, {cost['engine']}, on {cost['device']}\n"
    yield from _head(
        "views", "side", "words", "chunk", "steps", "batch", "ms", "model ms", "roofline ms"
    )
    for point in cost["points"]:
        sizes = (*point["shape"].values(), point["batch"])
        times = (point["p50_ms"], point["fitted_ms"], point["floor_ms"])
        yield _line(*map(str, sizes), *(f"{ms:.4g}" for ms in times))
    model = cost["model"]
    yield (
        f"\nt = {model['always_ms']:.3g} ms + {model['prefix_ms_per_tflop']:.4g} ms per TFLOP of "
        f"the prefix + {model['flow_ms_per_tflop']:.4g} ms per TFLOP of the flow + "
        f"{model['weights_ms_per_gb']:.3g} ms per GB of weights read; median error "
        f"{model['median_error']:.1%}, largest {model['largest_error']:.1%}"
    )


def _qlora(qlora: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n**{qlora['policy']}**, {qlora['shape']}; batch {qlora['batch']}\n"
    yield from _head("contender", "samples/s", "peak MB", "first loss", "last loss", "steps")
    for row in qlora["rows"]:
        if row["why"]:
            yield _line(row["contender"], f"not measured: {row['why']}", *[""] * 4)
            continue
        yield _line(
            row["contender"],
            f"{row['samples_per_s']:.3g}",
            f"{row['peak_mb']:.0f}",
            f"{row['losses'][0]:.4f}",
            f"{row['losses'][-1]:.4f}",
            str(len(row["losses"])),
        )
    if curves := qlora["curves"]:
        apart, noise = curves["difference"], curves["noise"]
        yield f"\nLoss curves {apart:.2%} apart; two seeds {noise:.2%}."


def _head(*names: str) -> Sequence[str]:
    return _line(*names), _line(*["---"] * len(names))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(*tables(json.loads(Path(sys.argv[1]).read_text())), sep="\n")
