"""Plain torch: defines the operators; the CPU path. See `fastvla_core.kernels.residual_mlp`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .spec import Block


def norm_relu(x: Tensor, block: Block) -> Tensor:
    """relu(layer_norm(x) @ W^T + b)."""
    normed = functional.layer_norm(x, (x.shape[-1],), block.norm_weight, block.norm_bias, block.eps)
    return functional.relu(functional.linear(normed, block.weight, block.bias))


def add_norm_relu(x: Tensor, block: Block) -> Tensor:
    """x + relu(layer_norm(x) @ W^T + b)."""
    return x + norm_relu(x, block)
