from __future__ import annotations

import math

import torch

from fastvla_core.layers.time_embedding import time_embedding


def test_sines_then_cosines_of_log_spaced_periods():
    row = time_embedding(torch.tensor(0.7).double(), width=8, min_period=4e-3, max_period=4.0)
    periods = [4e-3 * 1000 ** (i / 3) for i in range(4)]
    angles = [2 * math.pi * float(torch.tensor(0.7)) / p for p in periods]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


def test_is_computed_in_double_precision():
    assert time_embedding(torch.rand(2, 3), width=16).dtype is torch.float64
    assert time_embedding(torch.rand(2, 3), width=16).shape == (2, 3, 16)
