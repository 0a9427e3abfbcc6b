"""The hidden features of a gated MLP, activation(gate(x)) * up(x), in one pass over x.

The reference everywhere; on CUDA, without gradients, the Triton kernel where `FASTVLA_KERNELS`
names `gated_mlp`. The projection back down stays a linear layer. See README.md.
"""

from __future__ import annotations

from torch import Tensor

from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.switch import needs_gradient, takes_kernel

from . import reference

__all__ = ["gated_mlp", "serves"]


def gated_mlp(
    x: Tensor, gate_weight: Tensor, up_weight: Tensor, *, activation: ActivationName
) -> Tensor:
    """activation(x @ gate^T) * (x @ up^T).

    Args:
        x: [..., K].
        gate_weight, up_weight: [N, K].
        activation: "silu" (SwiGLU) or "gelu_tanh" (GeGLU), or "relu".
    Returns:
        [..., N] in the type of `x`.
    Source: Shazeer, arXiv:2002.05202.
    """
    if serves(x, gate_weight, up_weight):
        from . import triton as chosen
    else:
        chosen = reference
    return chosen.gated_mlp(x, gate_weight, up_weight, activation=activation)


def serves(x: Tensor, gate_weight: Tensor, up_weight: Tensor) -> bool:
    """Whether the kernel takes these: switched on, one type, no gradient."""
    if not takes_kernel("gated_mlp", x) or x.numel() == 0:
        return False
    alike = gate_weight.dtype == up_weight.dtype == x.dtype
    return alike and not needs_gradient(x, gate_weight, up_weight)
