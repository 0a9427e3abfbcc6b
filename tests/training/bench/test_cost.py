"""How the time grows: every axis is walked, and the model finds what a machine is made of."""

from __future__ import annotations

import dataclasses

import pytest

from training.bench.contest.rates import Rates
from training.bench.contest.workloads import SMALL
from training.bench.cost import Grid, Point, fit, measure_cost, model_lines, points_of, usual_grid
from training.bench.cost_picture import draw

RATES = Rates(copy_bytes_per_s=1e10, flops_per_s={"fp32": 1e11, "bf16": 1e11})


def test_every_axis_is_walked_from_the_centre():
    grid = usual_grid("cuda", None)
    points = list(points_of(grid))
    assert points[0] == (grid.centre, 1)
    assert len(points) == len(set(points))
    for axis in ("views", "side", "words", "chunk", "steps"):
        assert {getattr(shape, axis) for shape, _ in points} == set(grid.axes[axis])
    assert {batch for _, batch in points} == set(grid.axes["batch"])


def test_a_tiny_network_is_measured_at_every_point_and_drawn(tiny, tmp_path):
    axes = {"views": (2, 3), "side": (64, 128), "words": (6, 9), "chunk": (5, 7), "steps": (1, 3)}
    grid = Grid(
        policy=SMALL, centre=tiny, axes={**axes, "batch": (1, 2)}, engine="eager", seconds=0.05
    )
    said: list[str] = []
    points = measure_cost(grid, device="cpu", rates=RATES, say=said.append)
    assert len(points) == len(said) == 7
    by_shape = {(p.shape, p.batch): p for p in points}
    centre = by_shape[tiny, 1]
    more_steps = by_shape[dataclasses.replace(tiny, steps=1), 1]
    assert more_steps.flow_tflop == pytest.approx(centre.flow_tflop / 3)
    assert more_steps.prefix_tflop == pytest.approx(centre.prefix_tflop, rel=0.05)
    assert by_shape[tiny, 2].prefix_tflop > 1.9 * centre.prefix_tflop
    assert by_shape[tiny, 2].weights_gb == pytest.approx(centre.weights_gb, rel=0.01)
    _, fitted = fit(points)
    cost = {
        "points": [dataclasses.asdict(p) for p in fitted],
        "policy": SMALL,
        "engine": "eager",
        "device": "cpu",
    }
    draw(cost, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000


def test_the_fit_finds_the_coefficients_of_a_linear_machine(tiny):
    def point(prefix: float, flow: float, weights: float) -> Point:
        return Point(
            shape=tiny,
            batch=1,
            p50_ms=3 + 10 * prefix + 20 * flow + 0.5 * weights,
            floor_ms=1.0,
            prefix_tflop=prefix,
            flow_tflop=flow,
            weights_gb=weights,
        )

    sizes = [(1, 1, 1), (2, 1, 1), (1, 3, 2), (4, 1, 7), (1, 1, 20), (3, 2, 5)]
    model, points = fit([point(*size) for size in sizes])
    assert model.always_ms == pytest.approx(3)
    assert model.prefix_ms_per_tflop == pytest.approx(10)
    assert model.flow_ms_per_tflop == pytest.approx(20)
    assert model.weights_ms_per_gb == pytest.approx(0.5)
    assert model.largest_error < 1e-9
    assert points[0].fitted_ms == pytest.approx(points[0].p50_ms)
    text = "\n".join(model_lines(model, RATES, compute="fp32"))
    assert "prefix 10.0 ms per TFLOP" in text


def test_a_term_that_would_be_negative_is_left_out(tiny):
    def point(prefix: float, flow: float) -> Point:
        return Point(
            shape=tiny, batch=1, p50_ms=5 + prefix - 0.1 * flow, floor_ms=1.0,
            prefix_tflop=prefix, flow_tflop=flow, weights_gb=0.0,
        )  # fmt: skip

    model, _ = fit([point(1, 1), point(2, 1), point(1, 4), point(5, 2)])
    assert model.flow_ms_per_tflop == 0
    assert min(dataclasses.astuple(model)) >= 0
