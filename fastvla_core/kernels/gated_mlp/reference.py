"""Plain torch: defines the operator. See `fastvla_core.kernels.gated_mlp`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fastvla_core.kernels.activation import FUNCTIONS, ActivationName


def gated_mlp(
    x: Tensor, gate_weight: Tensor, up_weight: Tensor, *, activation: ActivationName
) -> Tensor:
    """activation(x @ gate^T) * (x @ up^T)."""
    gate = functional.linear(x, gate_weight)
    return FUNCTIONS[activation](gate) * functional.linear(x, up_weight)
