"""Rotary position embedding.

Shapes: b batch, h heads, t tokens, d head dimension, k = d / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastvla_core.kernels.qkv_rope import RopeTable

__all__ = ["RopeTable", "rope_table", "rope_table_of_angles"]


def rope_table(positions_t: Tensor, *, head_dim: int, base: float = 10_000.0) -> RopeTable:
    """Angles for the given positions, in float32.

    Args:
        positions_t: Integer positions [t].
        head_dim: Even size of a head.
        base: Longest wavelength divided by 2 pi.
    Source: RoFormer, arXiv:2104.09864.
    """
    exponents_k = torch.arange(0, head_dim, 2, device=positions_t.device).float() / head_dim
    angle_tk = positions_t.float()[:, None] * base**-exponents_k
    return RopeTable(angle_tk.cos(), angle_tk.sin())


def rope_table_of_angles(angle_btk: Tensor) -> RopeTable:
    """The table for tokens whose positions differ between samples; angles in float32 [rad]."""
    return RopeTable(angle_btk.cos()[:, None], angle_btk.sin()[:, None])
