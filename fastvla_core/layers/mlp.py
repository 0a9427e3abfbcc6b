"""Feed-forward blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.linear import linear

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tangent approximation that Gemma and SigLIP were trained with."""
    return functional.gelu(x, approximate="tanh")


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)).

    Source: Shazeer, arXiv:2002.05202 (SwiGLU; with GELU, GEGLU).
    """

    def __init__(
        self, width: int, hidden: int, *, activation: Activation = functional.silu
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj = linear(width, hidden)
        self.up_proj = linear(width, hidden)
        self.down_proj = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """fc2(activation(fc1(x))), both with a bias."""

    def __init__(self, width: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = linear(width, hidden, bias=True)
        self.fc2 = linear(hidden, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.fc2(self.activation(self.fc1(x)))
