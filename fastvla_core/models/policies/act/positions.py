"""Fixed positions of tokens in a sequence and of cells in a feature map."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_BASE = 10_000
_EPS = 1e-6


def sequence_positions(count: int, width: int) -> Tensor:
    """Sines and cosines in turns, float32 [1, count, width]; of period 2 pi to 20000 pi.

    Source: Attention is all you need, arXiv:1706.03762.
    """
    rates = _BASE ** (-2 * (np.arange(width) // 2) / width)
    angles = np.arange(count)[:, None] * rates
    angles[:, 0::2], angles[:, 1::2] = np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])
    return torch.from_numpy(angles).float()[None]


def map_positions(height: int, width: int, *, channels: int, device: torch.device) -> Tensor:
    """Positions of the cells of a map, row by row, float32 [1, height * width, channels].

    The first half of the channels tells the row, the second the column; both run up to 2 pi.

    Source: DETR, arXiv:2005.12872.
    """
    half = channels // 2
    numbers = torch.arange(half, dtype=torch.float32, device=device)
    periods = _BASE ** (2 * (numbers // 2) / half)
    rows, columns = (
        _waves(torch.arange(1, size + 1, dtype=torch.float32, device=device), periods)
        for size in (height, width)
    )
    both = torch.cat(
        [
            rows[:, None].expand(height, width, half),
            columns[None].expand(height, width, half),
        ],
        dim=-1,
    )
    return both.flatten(0, 1)[None]


def _waves(cells_n: Tensor, periods: Tensor) -> Tensor:
    angles = (cells_n / (cells_n[-1] + _EPS) * (2 * math.pi))[:, None] / periods
    return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)
