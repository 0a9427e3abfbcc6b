"""Latencies are counted as Prometheus counts them, in constant memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastvla_ros.diagnostics.goals import PathHistory
from fastvla_ros.diagnostics.histogram import BOUNDS_S, LatencyHistogram
from fastvla_ros.nodes.goal_types import PathLatency

MS = 1_000_000


def counted(*latencies_s: float) -> dict:
    histogram = LatencyHistogram()
    for latency_s in latencies_s:
        histogram.observe(latency_s)
    return histogram.values("x")


def test_the_bounds_rise_evenly_on_a_logarithmic_scale():
    ratios = [later / earlier for earlier, later in itertools.pairwise(BOUNDS_S)]
    assert all(2 <= round(ratio, 6) <= 2.5 for ratio in ratios)
    assert (BOUNDS_S[0], BOUNDS_S[-1]) == (0.001, 5.0)


def test_buckets_are_cumulative_and_hold_their_own_bound():
    values = counted(0.0005, 0.001, 0.0011, 0.3, 60.0)
    assert values["x.le_0.001"] == 2
    assert values["x.le_0.002"] == 3
    assert values["x.le_0.2"] == 3
    assert values["x.le_0.5"] == values["x.le_5"] == 4
    assert values["x.le_inf"] == values["x.count"] == 5
    assert values["x.sum_s"] == pytest.approx(60.3026)


def test_percentiles_are_those_of_the_latest():
    histogram = LatencyHistogram()
    for latency_s in [9.0] * 5000 + np.linspace(0, 1, 1000).tolist():
        histogram.observe(latency_s)
    assert histogram.percentile_s(50) == pytest.approx(0.5, abs=0.01)
    assert histogram.percentile_s(99) == pytest.approx(0.99, abs=0.01)


def test_before_the_first_everything_is_zero():
    assert set(counted().values()) == {0}


def test_memory_stays_the_same():
    histogram = LatencyHistogram()
    for _ in range(3000):
        histogram.observe(0.1)
    assert len(histogram._recent) == 1000
    assert len(histogram._counts) == len(BOUNDS_S) + 1


def test_a_way_from_image_to_command_has_three_latencies():
    paths = PathHistory()
    paths.append(
        PathLatency(
            arrived_ns=0, started_ns=1 * MS, finished_ns=81 * MS, ticked_ns=90 * MS,
            published_ns=91 * MS,
        )
    )  # fmt: skip
    values = paths.values()
    assert values["inference.p50_s"] == pytest.approx(0.08)
    assert values["overhead.p50_s"] == pytest.approx(0.011)
    assert values["path.p50_s"] == pytest.approx(0.091)
    assert (values["path.le_0.05"], values["path.le_0.1"]) == (0, 1)
