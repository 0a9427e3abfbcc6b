"""Branches of a residual stream whose last step is added by one kernel, where that is on."""

from __future__ import annotations

from torch import Tensor, nn

from fastvla_core.kernels import residual_mlp
from fastvla_core.kernels.cross_attention import gated_projection
from fastvla_core.kernels.residual_mlp import Block
from fastvla_core.kernels.switch import takes_kernel
from fastvla_core.layers.linear import as_projection


def add_gated(x: Tensor, hidden: Tensor, layer: nn.Module, gate: Tensor) -> Tensor:
    """x + tanh(gate) * layer(hidden).

    Args:
        x: [..., n].
        hidden: [..., k].
        layer: k to n features.
        gate: One element.
    Source: Flamingo, arXiv:2204.14198.
    """
    if takes_kernel("cross_attention", x) and (found := as_projection(layer, x)):
        return gated_projection(x, hidden, found.weight, found.bias, gate)
    return x + gate.tanh() * layer(hidden)


def norm_relu(x: Tensor, norm: nn.LayerNorm, layer: nn.Module) -> Tensor:
    """relu(layer(norm(x)))."""
    block = _block(x, norm, layer)
    return layer(norm(x)).relu() if block is None else residual_mlp.norm_relu(x, block)


def add_norm_relu(x: Tensor, norm: nn.LayerNorm, layer: nn.Module) -> Tensor:
    """x + relu(layer(norm(x))): a block of the residual MLP of OpenVLA-OFT, arXiv:2502.19645."""
    block = _block(x, norm, layer)
    return x + layer(norm(x)).relu() if block is None else residual_mlp.add_norm_relu(x, block)


def _block(x: Tensor, norm: nn.LayerNorm, layer: nn.Module) -> Block | None:
    """Both as parameters for the kernel; None where it does not serve."""
    if not takes_kernel("residual_mlp", x):
        return None
    found = as_projection(layer, x)
    if found is None or found.bias is None or norm.weight is None or norm.bias is None:
        return None
    return Block(
        norm_weight=norm.weight,
        norm_bias=norm.bias,
        weight=found.weight,
        bias=found.bias,
        eps=norm.eps,
    )
