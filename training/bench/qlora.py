"""Training adapters on packed weights: ours beside peft on bitsandbytes, on the same batches."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from training.bench.contest.command import compute_types, versions
from training.bench.contest.job import Job
from training.bench.contest.session import ContenderError, Session
from training.bench.contest.workloads import SMALL, Workload, prepare

Say = Callable[[str], None]
OURS, PEER, OTHER_SEED = "ours", "peft + bitsandbytes", "ours, another seed"
_LEARNER = "training.bench.contest.learner"
# The first step prepares what libraries keep.
_WARM_UP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What became of a contender.

    Attributes:
        why: Why it has no numbers; empty when it has.
        samples_per_s: By the median step.
        peak_mb: Largest memory in training: of the GPU's allocator, or resident.
        losses: One per step.
    """

    contender: str
    why: str = ""
    samples_per_s: float = 0.0
    peak_mb: float = 0.0
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Two loss curves of the same batches, times and noise.

    Attributes:
        difference: Root mean square of the relative difference, step by step.
        noise: The same between two seeds of times and noise.
    """

    difference: float
    noise: float

    @property
    def same(self) -> bool:
        """Whether the curves are no further apart than two seeds of one contender are."""
        return self.difference <= self.noise


def compare_learners(
    workload: Workload,
    *,
    device: str,
    threads: int,
    batch: int,
    steps: int,
    seconds: float,
    say: Say,
) -> list[Learning]:
    """Train all for `steps` steps in turn, a few at a time, so that drift hits all alike.

    Args:
        seconds: For everything; who is not ready in its third has no numbers.
    """
    end = time.monotonic() + seconds
    turns = max(1, steps // 5)
    found: dict[str, Learning] = {}
    collected: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for name, options in _learners(compute_types(device)[-1], batch).items():
            job = Job(
                checkpoint=str(workload.checkpoint),
                inputs=str(workload.inputs),
                device=device,
                threads=threads,
                options=options,
            )
            session = Session(_LEARNER, job)
            stack.callback(session.close)
            try:
                session.ready(deadline_s=seconds / 3)
            except ContenderError as error:
                found[name] = Learning(contender=name, why=error.message)
                say(f"{name}: {error.message}")
                continue
            sessions[name], collected[name] = session, []
            say(f"{name}: ready")
        for left in range(-(-steps // turns), 0, -1):
            for name in list(sessions):
                share = (end - time.monotonic()) / left / len(sessions)
                try:
                    reply = sessions[name].order(
                        "train", steps=turns, seconds=1e9, deadline_s=max(60.0, 5 * share)
                    )
                except ContenderError as error:
                    found[name] = Learning(contender=name, why=error.message)
                    del sessions[name]
                    continue
                collected[name].append(reply)
            if time.monotonic() > end:
                break
    done = {name: _learned(name, collected[name], batch) for name in sessions}
    return [{**found, **done}[name] for name in _learners("fp32", batch)]


def _learners(compute: str, batch: int) -> Mapping[str, Mapping[str, str]]:
    common = {"compute": compute, "batch": str(batch)}
    return {
        OURS: {**common, "way": "ours", "seed": "0"},
        PEER: {**common, "way": "bitsandbytes", "seed": "0"},
        OTHER_SEED: {**common, "way": "ours", "seed": "1"},
    }


def _learned(name: str, replies: Sequence[Mapping[str, Any]], batch: int) -> Learning:
    times = [t for reply in replies for t in reply["times_s"]]
    return Learning(
        contender=name,
        samples_per_s=batch / statistics.median(times[_WARM_UP:] or times),
        peak_mb=max(reply["peak_mb"] for reply in replies),
        losses=tuple(loss for reply in replies for loss in reply["losses"]),
    )


def compare_curves(learned: Sequence[Learning]) -> Curves | None:
    """How far ours is from the peer's, and how far two seeds are from each other.

    Returns None where one of the curves is missing.
    """
    by_name = {one.contender: one.losses for one in learned}
    ours, peer, other = (by_name.get(name, ()) for name in (OURS, PEER, OTHER_SEED))
    if not (ours and peer and other):
        return None
    return Curves(difference=_distance(ours, peer), noise=_distance(ours, other))


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    pairs = list(zip(a, b))
    return math.sqrt(sum(((x - y) / (x + y) * 2) ** 2 for x, y in pairs) / len(pairs))


def run_qlora(
    *, policy: str | None, device: str, threads: int, minutes: float, steps: int = 40
) -> dict[str, Any]:
    """Prepare, train, print; returns all numbers."""
    torch.set_num_threads(threads)
    name = policy or (SMALL if device == "cpu" else "pi05")
    batch = 2 if device == "cpu" else 4
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        workload = prepare(name, Path(folder), inputs=8 * batch, device=device)
        print(f"\nadapters on NF4 weights: {name}, {workload.shape}; batch {batch}")
        learned = compare_learners(
            workload,
            device=device,
            threads=threads,
            batch=batch,
            steps=steps,
            seconds=60 * minutes - (time.monotonic() - began),
            say=lambda line: print(f"  ... {line}", flush=True),
        )
    curves = compare_curves(learned)
    print(*learning_lines(learned, curves), sep="\n", flush=True)
    return {
        "policy": name,
        "shape": workload.shape,
        "device": device,
        "threads": threads,
        "batch": batch,
        "versions": versions(),
        "rows": [dataclasses.asdict(one) for one in learned],
        "curves": dataclasses.asdict(curves) if curves else None,
    }


def learning_lines(learned: Sequence[Learning], curves: Curves | None) -> Iterator[str]:
    """The table, and the comparison of the curves."""
    for one in learned:
        if one.why:
            yield f"  {one.contender:24} not measured: {one.why}"
            continue
        yield (
            f"  {one.contender:24} {one.samples_per_s:9.3f} samples/s {one.peak_mb:9.0f} MB  loss "
            f"{one.losses[0]:.4f} -> {one.losses[-1]:.4f} in {len(one.losses)} steps"
        )
    by_name = {one.contender: one for one in learned if not one.why}
    if OURS in by_name and PEER in by_name:
        factor = by_name[OURS].samples_per_s / by_name[PEER].samples_per_s
        yield f"  ours: {factor:.2f} times {PEER}"
    if curves:
        verdict = "the same within noise" if curves.same else "NOT the same"
        yield (
            f"  loss curves: {curves.difference:.2%} apart, two seeds {curves.noise:.2%}: {verdict}"
        )
