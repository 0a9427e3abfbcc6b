"""The table at the end of a demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport

_HEAD = ("goal", "outcome", "time", "inference p50 / p99", "commands", "limited")
_COLOURS = {"success": "32", "failure": "31", "unknown": "33"}


def goals_table(reports: Sequence[GoalReport], *, colour: bool) -> str:
    """One row per goal; the outcome is the simulator's, in colour on a terminal."""
    rows = [_row(report) for report in reports]
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(_HEAD, widths)).rstrip()]
    lines.append("  ".join("-" * width for width in widths))
    for row, report in zip(rows, reports):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        if colour:
            cells[1] = f"\x1b[{_COLOURS[report.outcome]}m{cells[1]}\x1b[0m"
        lines.append("  ".join(cells).rstrip())
        if report.outcome != "success" and report.message:
            lines.append(f"    {report.error}: {report.message}")
    return "\n".join(lines)


def _row(report: GoalReport) -> tuple[str, ...]:
    latency = f"{report.latency_p50_s * 1e3:.0f} / {report.latency_p99_s * 1e3:.0f} ms"
    return (
        report.task,
        report.outcome,
        f"{report.elapsed_s:.1f} s",
        latency if report.inferences else "-",
        str(report.commands_sent),
        str(report.commands_limited),
    )
