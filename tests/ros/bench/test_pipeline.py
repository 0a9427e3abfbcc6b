"""The bench of the ROS path measures the real graph."""

import math

from fastvla_ros.bench.pipeline import measure


def test_a_short_run_gives_every_number():
    numbers = measure(seconds=3.0)
    assert all(isinstance(value, (int, float)) for value in numbers.values())
    assert not any(math.isnan(value) for value in numbers.values())
    assert numbers["chunks"] >= 3
    assert 0 < numbers["processing_p50_ms"] <= numbers["with_waiting_p50_ms"]
    assert numbers["processing_p50_ms"] <= numbers["processing_p99_ms"]
    assert 0 < numbers["rate_held_hz"] <= 33
    assert numbers["cpu_cores_used"] > 0
