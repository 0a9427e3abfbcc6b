"""The gated feed-forward block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.linear import linear


class GatedMLP(nn.Module):
    """down(SiLU(gate(x)) * up(x)).

    Source: Shazeer, arXiv:2002.05202 (SwiGLU).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = linear(width, hidden)
        self.up_proj = linear(width, hidden)
        self.down_proj = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
