"""The table of a race: beside the times what the device could do at best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.bench.contest.check import NF4_GOAL
from training.bench.contest.race import Result
from training.bench.contest.rates import Rates
from training.bench.contest.work import Work
from training.bench.contest.workloads import Workload

_HEADER = (
    f"  {'contender':38} {'p50 ms':>9} {'p99 ms':>9} {'p99/p50':>8} {'replays':>8} {'peak MB':>8} "
    f"{'floor ms':>9} {'of floor':>9} {'cosine':>8} {'max error':>10}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A contender's row; where `why` is given there are no times.

    Attributes:
        floor_ms: Of its weights and products, with the device's measured rates; None where the
            rate of such products was not measured.
        floor_share: `floor_ms` over the median: 1 is as fast as can be.
        worst_cosine, worst_flow_cosine, worst_motion_cosine, max_error, inputs: See
            `check.Agreement`; None where it gave no actions.
    """

    contender: str
    peer: bool
    weights: str
    compute: str
    why: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_over_p50: float | None = None
    replays: int = 0
    peak_mb: float | None = None
    floor_ms: float | None = None
    floor_share: float | None = None
    worst_cosine: float | None = None
    worst_flow_cosine: float | None = None
    max_error: float | None = None
    inputs: int | None = None
    worst_motion_cosine: float | None = None


def make_row(result: Result, *, work: Work, rates: Rates) -> Row:
    """What a contender's times mean."""
    contender = result.contender
    agreed: Mapping[str, Any] = {}
    if result.agreement is not None:
        agreed = dataclasses.asdict(result.agreement)
    row = Row(
        contender=contender.name,
        peer=contender.peer,
        weights=contender.weights,
        compute=contender.compute,
        why=result.why,
        **agreed,
    )
    if result.why:
        return row
    floor_ms = None
    if contender.compute in rates.flops_per_s:
        floor_s = work.floor_s(rates, weights=contender.weights, compute=contender.compute)
        floor_ms = floor_s * 1e3
    return dataclasses.replace(
        row,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        p99_over_p50=result.p99_ms / result.p50_ms,
        replays=len(result.times_ms),
        peak_mb=result.peak_mb,
        floor_ms=floor_ms,
        floor_share=None if floor_ms is None else floor_ms / result.p50_ms,
    )


def table_lines(workload: Workload, rows: Sequence[Row]) -> Iterator[str]:
    """The table, and below it what was asked for."""
    yield ""
    yield f"{workload.name}, {workload.parameters / 1e6:.0f}M weights: {workload.shape}"
    yield _HEADER
    for row in rows:
        if row.p50_ms is None:
            yield f"  {row.contender:38} not measured: {row.why}"
            continue
        floor = f"{'':19}"
        if row.floor_ms is not None:
            floor = f"{row.floor_ms:9.2f} {row.floor_share:9.1%}"
        yield (
            f"  {row.contender:38} {row.p50_ms:9.2f} {row.p99_ms:9.2f} {row.p99_over_p50:8.3f} "
            f"{row.replays:8d} {row.peak_mb:8.0f} {floor} "
            f"{row.worst_cosine:8.5f} {row.max_error:10.2g}"
        )
    yield from summary_lines(rows)


def summary_lines(rows: Sequence[Row]) -> Iterator[str]:
    """NF4's cosine, and how much faster the fastest of ours is than the fastest peer."""
    ours = [row for row in rows if not row.peer]
    packed = [r for r in ours if r.weights == "nf4" and r.worst_cosine is not None]
    if packed:
        worst = min(packed, key=lambda row: row.worst_cosine or 0.0)
        assert worst.worst_cosine is not None
        # What the robot does counts, where there is one.
        motion = worst.worst_motion_cosine
        counts = worst.worst_cosine if motion is None else motion
        verdict = "holds" if counts >= NF4_GOAL else "MISSED"
        robot = "" if motion is None else f", of the robot's motion {motion:.5f}"
        yield (
            f"  NF4, worst of {worst.inputs} inputs: cosine of normalised actions "
            f"{worst.worst_cosine:.5f}, of the flow alone {worst.worst_flow_cosine:.5f}{robot} "
            f"(asked: {NF4_GOAL}; {verdict})"
        )
    fastest = fastest_of(ours)
    for name, peers in (
        ("the fastest peer", [row for row in rows if row.peer]),
        ("LeRobot's fastest", [row for row in rows if row.contender.startswith("LeRobot")]),
    ):
        peer = fastest_of(peers)
        if fastest is not None and peer is not None:
            factor = (peer.p50_ms or 0.0) / (fastest.p50_ms or 1.0)
            yield f"  {fastest.contender}: {factor:.2f} times {name} ({peer.contender})"


def fastest_of(rows: Sequence[Row]) -> Row | None:
    """The row with the smallest median; None where there are no times."""
    timed = [row for row in rows if row.p50_ms is not None]
    return min(timed, key=lambda row: row.p50_ms or 0.0) if timed else None
