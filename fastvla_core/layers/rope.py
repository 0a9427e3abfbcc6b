"""Rotary position embedding.

Shapes: b batch, h heads, t tokens, d head dimension, k = d / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Cosine and sine of every token's angles, each [t, k], or [b, 1, t, k] per sample."""

    cos_tk: Tensor
    sin_tk: Tensor

    def at(self, rows_bt: Tensor) -> RopeTable:
        """The table of some of its tokens, which differ between samples: rows of [t, k]."""
        return RopeTable(self.cos_tk[rows_bt][:, None], self.sin_tk[rows_bt][:, None])

    def rotate(self, x_bhtd: Tensor) -> Tensor:
        """Rotate each head by its token's position; halves of d form the pairs."""
        cos, sin = self.cos_tk.to(x_bhtd.dtype), self.sin_tk.to(x_bhtd.dtype)
        left, right = x_bhtd.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


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
