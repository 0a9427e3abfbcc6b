"""Sinusoidal embedding of the flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def time_embedding(
    time: Tensor, *, width: int, min_period: float = 4e-3, max_period: float = 4.0
) -> Tensor:
    """[sin, cos] of the time at log-spaced periods.

    Computed in float64: at the shortest period the last bit of a float32 time shows.

    Args:
        time: Flow times of any shape, 0 (data) to 1 (noise).
        width: Even size of the result's last dimension.
        min_period, max_period: Shortest and longest period, in units of the flow time.
    Returns:
        float64 [..., width].
    Source: Vaswani et al., arXiv:1706.03762, with pi0's periods (arXiv:2410.24164).
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = time.double()[..., None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
