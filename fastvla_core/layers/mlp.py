"""Feed-forward blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.kernels import gated_mlp as kernel
from fastvla_core.kernels.activation import Activation, gelu_tanh, name_of
from fastvla_core.kernels.switch import takes_kernel
from fastvla_core.layers.linear import activated, as_projection, linear

__all__ = ["Activation", "GatedMLP", "PlainMLP", "gelu_tanh"]


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
        return self.down_proj(self._hidden(x))

    def _hidden(self, x: Tensor) -> Tensor:
        if takes_kernel("gated_mlp", x) and (name := name_of(self.activation)):
            gate, up = as_projection(self.gate_proj, x), as_projection(self.up_proj, x)
            if gate and up and kernel.serves(x, gate.weight, up.weight):
                return kernel.gated_mlp(x, gate.weight, up.weight, activation=name)
        return activated(self.gate_proj, x, self.activation) * self.up_proj(x)


class PlainMLP(nn.Module):
    """fc2(activation(fc1(x))), both with a bias."""

    def __init__(self, width: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = linear(width, hidden, bias=True)
        self.fc2 = linear(hidden, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.fc2(activated(self.fc1, x, self.activation))
