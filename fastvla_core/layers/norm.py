"""Root-mean-square normalisation: plain, with Gemma's offset, and steered by a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastvla_core.kernels import rms_norm as kernel


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, then by a learned weight.

    Args:
        width: Size of the last dimension.
        eps: Added to the mean square.
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """

    offset: ClassVar[float] = 0.0

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((width,), 1.0 - self.offset))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension; the result has the dtype of `x`."""
        return kernel.rms_norm(x, self.weight, eps=self.eps, offset=self.offset)

    def add(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """x + branch, and that normalised."""
        return kernel.add_rms_norm(x, branch, self.weight, eps=self.eps, offset=self.offset)


class OffsetRMSNorm(RMSNorm):
    """RMSNorm whose stored weight is the distance from one, as Gemma stores it; float32 inside."""

    offset: ClassVar[float] = 1.0


@dataclass(frozen=True, slots=True)
class Steering:
    """What a condition makes of a norm, each [b, d]; the gate scales the branch behind it."""

    scale_bd: Tensor
    shift_bd: Tensor
    gate_bd: Tensor

    def at(self, row: int) -> Steering:
        """What one row asks for, for all samples: [1, d] each."""
        parts = (self.scale_bd, self.shift_bd, self.gate_bd)
        return Steering(*(part[row : row + 1] for part in parts))


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale and shift, and the gate of the branch behind it, come from a condition.

    Args:
        width: Size of the last dimension, and of the condition.
        eps: Added to the mean square.
    Source: pi0.5, arXiv:2504.16054; adaptive norms of DiT, arXiv:2212.09748.
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.dense = nn.Linear(width, 3 * width)

    def steering(self, condition_bd: Tensor) -> Steering:
        """What the condition asks for."""
        return Steering(*self.dense(condition_bd).chunk(3, dim=-1))

    def forward(self, x_btd: Tensor, steering: Steering) -> Tensor:
        """The normalised [b, t, d], in the dtype of `x_btd`."""
        scale, shift = steering.scale_bd, steering.shift_bd
        return kernel.adaptive_rms_norm(x_btd, scale, shift, eps=self.eps)

    def add(
        self, x_btd: Tensor, branch_btd: Tensor, gate_bd: Tensor, steering: Steering
    ) -> tuple[Tensor, Tensor]:
        """x + branch * gate, and that normalised; the gate is the branch's own."""
        scale, shift = steering.scale_bd, steering.shift_bd
        return kernel.add_adaptive_rms_norm(
            x_btd, branch_btd, gate_bd.to(x_btd.dtype), scale, shift, eps=self.eps
        )
