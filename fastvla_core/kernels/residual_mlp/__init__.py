"""A block of the residual MLP that some action heads end in: layer norm, linear layer, ReLU.

The reference everywhere; on CUDA the Triton kernels where `FASTVLA_KERNELS` names `residual_mlp`,
with gradients too. Shapes: k input and n output features. See README.md.
"""

from __future__ import annotations

from torch import Tensor

from fastvla_core.kernels.switch import takes_kernel

from . import reference
from .spec import Block

__all__ = ["MAX_WIDTH", "Block", "add_norm_relu", "norm_relu"]

# The backward pass holds a row in registers; wider ones would spill.
MAX_WIDTH = 8192


def norm_relu(x: Tensor, block: Block) -> Tensor:
    """relu(layer_norm(x) @ W^T + b), [..., k] to [..., n]; gradients flow to all tensors."""
    if not _serves(x, block):
        return reference.norm_relu(x, block)
    from .triton import ResidualBlock

    result: Tensor = ResidualBlock.apply(x, *block.tensors, block.eps, False)
    return result


def add_norm_relu(x: Tensor, block: Block) -> Tensor:
    """x + relu(layer_norm(x) @ W^T + b), [..., k] to the same; gradients flow to all tensors.

    Source: OpenVLA-OFT, arXiv:2502.19645.
    """
    if not _serves(x, block):
        return reference.add_norm_relu(x, block)
    from .triton import ResidualBlock

    result: Tensor = ResidualBlock.apply(x, *block.tensors, block.eps, True)
    return result


def _serves(x: Tensor, block: Block) -> bool:
    alike = all(tensor.dtype == x.dtype for tensor in block.tensors)
    fits = x.numel() > 0 and x.shape[-1] <= MAX_WIDTH
    return takes_kernel("residual_mlp", x) and alike and fits
