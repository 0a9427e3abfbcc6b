"""Root-mean-square normalisation: plain, with Gemma's offset, and steered by a condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, then by a learned weight.

    Args:
        width: Size of the last dimension.
        eps: Added to the mean square.
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension; the result has the dtype of `x`."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class OffsetRMSNorm(nn.Module):
    """RMSNorm whose stored weight is the distance from one, as Gemma stores it; float32 inside."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension; the result has the dtype of `x`."""
        weight = 1.0 + self.weight.float()
        return functional.rms_norm(x.float(), (x.shape[-1],), weight, self.eps).to(x.dtype)


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

    def forward(self, x_btd: Tensor, condition_bd: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised [b, t, d] and the gate [b, 1, d], in the dtype of `x_btd`."""
        steer = self.dense(condition_bd)[:, None].float()
        scale, shift, gate = steer.chunk(3, dim=-1)
        normed = functional.rms_norm(x_btd.float(), (x_btd.shape[-1],), None, self.eps)
        return (normed * (1 + scale) + shift).to(x_btd.dtype), gate.to(x_btd.dtype)
