"""How the time of an inference grows, one size at a time round a centre; and a model of it.

The model is linear in what `contest.work` counts: products of prefix and flow, weights that are
read, and a part that is always there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from training.bench.contest.command import compute_types, rates_line, versions
from training.bench.contest.engines import prepared
from training.bench.contest.job import Batch
from training.bench.contest.rates import Rates, measure_rates
from training.bench.contest.replay import replay_ms
from training.bench.contest.work import Work, count_work
from training.bench.contest.workloads import SMALL, Shape, random_batch, random_policy

Say = Callable[[str], None]
_SEVERAL_INPUTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is varied.

    Attributes:
        policy: A name of `workloads.SHAPES`, or `workloads.SMALL`.
        centre: What stays where it is while one size changes.
        axes: Field of `Shape`, or "batch", to its values.
        engine: How the network is executed.
        seconds: Per point.
    """

    policy: str
    centre: Shape
    axes: Mapping[str, tuple[int, ...]]
    engine: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One shape's time.

    Attributes:
        p50_ms: Median.
        floor_ms: No faster with the measured rates of the device.
        fitted_ms: What the cost model says.
        prefix_tflop, flow_tflop: Products of the observation's part, and of all flow steps.
        weights_gb: That are read, each as often as its layer is used.
    """

    shape: Shape
    batch: int
    p50_ms: float
    floor_ms: float
    prefix_tflop: float
    flow_tflop: float
    weights_gb: float
    fitted_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """t [ms] = always + prefix * TFLOP + flow * TFLOP + weights * GB.

    Attributes:
        always_ms, prefix_ms_per_tflop, flow_ms_per_tflop, weights_ms_per_gb: The coefficients; a
            term that the points do not show is 0.
        median_error, largest_error: Of the fitted times, relative.
    """

    always_ms: float
    prefix_ms_per_tflop: float
    flow_ms_per_tflop: float
    weights_ms_per_gb: float
    median_error: float
    largest_error: float


def usual_grid(device: str, policy: str | None) -> Grid:
    """Views 1-4, image side 224-448, prompt 16-200, chunk 10-100, steps 1-10, batch 1-16.

    On a processor: SmolVLA's widths in four layers (vision: three), unless a policy is named.
    """
    axes = {
        "views": (1, 2, 3, 4),
        "side": (224, 320, 384, 448),
        "words": (16, 48, 100, 200),
        "chunk": (10, 25, 50, 100),
        "steps": (1, 2, 5, 10),
        "batch": (1, 2, 4, 8, 16),
    }
    name = policy or (SMALL if device == "cpu" else "pi0")
    if name in ("pi0", "pi05"):
        # Patches of 14 pixels.
        axes["side"] = (224, 280, 336, 448)
    elif device == "cpu":
        # Squares of 64 pixels become one token.
        axes["side"] = (256, 320, 384, 448)
    centre = Shape(views=2, side=axes["side"][0], words=48)
    engine = "eager" if device == "cpu" else "cuda_graph"
    return Grid(
        policy=name,
        centre=centre,
        axes=axes,
        engine=engine,
        seconds=2.0 if device == "cpu" else 1.0,
    )


def points_of(grid: Grid) -> Iterator[tuple[Shape, int]]:
    """The centre, then every other value of every axis."""
    yield grid.centre, 1
    for axis, values in grid.axes.items():
        for value in values:
            if axis == "batch" and value != 1:
                yield grid.centre, value
            elif axis != "batch" and value != getattr(grid.centre, axis):
                yield dataclasses.replace(grid.centre, **{axis: value}), 1


def measure_cost(grid: Grid, *, device: str, rates: Rates, say: Say) -> list[Point]:
    """Time and count every point of a grid, on one network with random weights."""
    compute = compute_types(device)[-1]
    with TemporaryDirectory() as folder:
        config, model = random_policy(grid.policy, grid.centre, Path(folder), device=device)
    model = model.to(getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}[compute]))
    with weightless():
        twin = POLICIES.load(config.policy_type).model(config).eval()
    points = []
    for shape, batch in points_of(grid):
        point = _measured(
            (model, twin, config), grid, shape, batch, device=device, rates=rates, compute=compute
        )
        say(point_line(point))
        points.append(point)
    return points


def _measured(
    network: tuple[Any, Any, Any],
    grid: Grid,
    shape: Shape,
    batch: int,
    *,
    device: str,
    rates: Rates,
    compute: str,
) -> Point:
    model, twin, config = network
    steps = {"num_steps": shape.steps} if "smolvla" in grid.policy else {}
    steps = steps or {"num_inference_steps": shape.steps}
    changed = dataclasses.replace(config, chunk_size=shape.chunk, **steps)
    model.config = twin.config = changed
    inputs: list[Batch] = []
    for seed in range(_SEVERAL_INPUTS):
        generator = torch.Generator().manual_seed(seed)
        one = random_batch(changed, shape, generator=generator, batch=batch)
        inputs.append({name: tensor.to(device) for name, tensor in one.items()})
    run = prepared(grid.engine, model, inputs[0])
    times = replay_ms(run, inputs, device=device, count=200, seconds=grid.seconds)
    work = count_work(twin, inputs[0])
    return _point(work, shape, batch, p50_ms=float(np.median(times)), rates=rates, compute=compute)


def _point(
    work: Work, shape: Shape, batch: int, *, p50_ms: float, rates: Rates, compute: str
) -> Point:
    return Point(
        shape=shape,
        batch=batch,
        p50_ms=p50_ms,
        floor_ms=work.floor_s(rates, weights=compute, compute=compute) * 1e3,
        prefix_tflop=(work.flops - work.flow_flops) / 1e12,
        flow_tflop=work.flow_flops / 1e12,
        weights_gb=work.weight_bytes(weights=compute, compute=compute) / 1e9,
    )


def fit(points: Sequence[Point]) -> tuple[CostModel, list[Point]]:
    """Least squares of the relative errors, no coefficient below zero; the points as fitted."""
    columns = np.array(
        [[1.0, p.prefix_tflop, p.flow_tflop, p.weights_gb] for p in points], np.float64
    )
    times = np.array([p.p50_ms for p in points])
    coefficients = _non_negative(columns / times[:, None], np.ones(len(points)))
    fitted = columns @ coefficients
    errors = np.abs(fitted - times) / times
    model = CostModel(
        always_ms=coefficients[0],
        prefix_ms_per_tflop=coefficients[1],
        flow_ms_per_tflop=coefficients[2],
        weights_ms_per_gb=coefficients[3],
        median_error=float(np.median(errors)),
        largest_error=float(errors.max()),
    )
    done = [dataclasses.replace(p, fitted_ms=float(f)) for p, f in zip(points, fitted)]
    return model, done


def _non_negative(columns: Any, wanted: Any) -> Any:
    """Least squares in which the most negative term is left out until none is."""
    used = list(range(columns.shape[1]))
    result = np.zeros(columns.shape[1])
    while used:
        found = np.linalg.lstsq(columns[:, used], wanted, rcond=None)[0]
        if found.min() >= 0:
            result[used] = found
            return result
        used.pop(int(found.argmin()))
    return result


def run_cost(*, policy: str | None, device: str, threads: int) -> dict[str, Any]:
    """Measure, fit, print; returns all numbers."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    grid = usual_grid(device, policy)
    rates = measure_rates(device, types=compute_types(device))
    print(rates_line(rates))
    print(f"\n{grid.policy}, {grid.engine}, random weights; round {grid.centre.text}, batch 1")
    print("  views side words chunk steps batch       p50 ms   floor ms")
    points = measure_cost(
        grid, device=device, rates=rates, say=lambda line: print(line, flush=True)
    )
    model, points = fit(points)
    print(*model_lines(model, rates, compute=compute_types(device)[-1]), sep="\n")
    return {
        "policy": grid.policy,
        "engine": grid.engine,
        "device": device,
        "threads": threads,
        "versions": versions(),
        "rates": dataclasses.asdict(rates),
        "model": dataclasses.asdict(model),
        "points": [dataclasses.asdict(point) for point in points],
        "seconds": time.monotonic() - began,
    }


def point_line(point: Point) -> str:
    """A point as text."""
    s = point.shape
    sizes = f"{s.views:5d} {s.side:4d} {s.words:5d} {s.chunk:5d} {s.steps:5d} {point.batch:5d}"
    return f"  {sizes} {point.p50_ms:12.2f} {point.floor_ms:10.2f}"


def model_lines(model: CostModel, rates: Rates, *, compute: str) -> Iterator[str]:
    """The coefficients beside the device's measured rates."""
    limit = rates.flops_per_s[compute]
    yield f"  always {model.always_ms:.2f} ms"
    for name, ms in (
        ("prefix", model.prefix_ms_per_tflop),
        ("flow", model.flow_ms_per_tflop),
    ):
        speed = f"{1e15 / ms / limit:.0%} of the measured limit" if ms else "not seen"
        yield f"  {name} {ms:.1f} ms per TFLOP ({speed})"
    ms = model.weights_ms_per_gb
    speed = f"{1e12 / ms / rates.copy_bytes_per_s:.0%} of the measured copy" if ms else "not seen"
    yield f"  weights {ms:.2f} ms per GB read ({speed})"
    yield f"  fit: median error {model.median_error:.1%}, largest {model.largest_error:.1%}"
