"""Root-mean-square normalisation."""

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
