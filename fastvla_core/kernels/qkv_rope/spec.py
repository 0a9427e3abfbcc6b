"""What the projection reads, and what it serves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer's weight [N, K] and bias [N] or None."""

    weight: Tensor
    bias: Tensor | None = None


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
