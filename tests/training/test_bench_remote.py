"""The measurement of a policy behind gRPC runs and compares like with like."""

from __future__ import annotations

import pytest

from training.bench.remote import time_remote


@pytest.mark.slow
def test_every_variant_is_timed():
    rows = time_remote("nano", rounds=2, threads=1)
    assert [(row.observation, row.policy) for row in rows] == [
        ("2 x 96 x 96", "here"),
        ("2 x 96 x 96", "served"),
        ("3 x 640 x 480", "way"),
        ("3 x 640 x 480", "way, JPEG 90"),
    ]
    assert all(0 < row.p50_ms <= row.p99_ms for row in rows)
