"""Queries, keys and values of a sequence in one launch, rotated by their tokens' positions.

The reference everywhere; on CUDA, without gradients, the Triton kernel where `FASTVLA_KERNELS`
names `qkv_rope`. Shapes: b samples, t tokens, w width, h query heads, g key/value heads, d head
dimension, k = d / 2. See README.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastvla_core.kernels.switch import needs_gradient, takes_kernel

from . import reference
from .spec import Projection, RopeTable

__all__ = ["Projection", "RopeTable", "qkv_rope", "serves"]


def qkv_rope(
    x_btw: Tensor,
    query: Projection | None,
    key: Projection,
    value: Projection,
    *,
    head_dim: int,
    rope: RopeTable | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Project a sequence to heads and rotate queries and keys.

    Args:
        x_btw: The sequence.
        query: To h * d features; None where only keys and values are wanted.
        key, value: To g * d features each; all three have a bias or none has.
        head_dim: d, even.
        rope: Angles of each token; None where positions are learned.
    Returns:
        Queries [b, h, t, d] or None, keys [b, g, t, d], values [b, g, t, d].
    Source: RoFormer, arXiv:2104.09864; grouped queries, arXiv:2305.13245.
    """
    if serves(x_btw, query, key, value, rope):
        from . import triton as chosen
    else:
        chosen = reference
    return chosen.qkv_rope(x_btw, query, key, value, head_dim=head_dim, rope=rope)


def serves(
    x: Tensor,
    query: Projection | None,
    key: Projection,
    value: Projection,
    rope: RopeTable | None,
) -> bool:
    """Whether the kernel takes these: switched on, one type, no gradient, all biased or none."""
    if not takes_kernel("qkv_rope", x) or x.numel() == 0:
        return False
    parts = [part for part in (query, key, value) if part is not None]
    weights = [part.weight for part in parts]
    biases = [part.bias for part in parts]
    alike = all(t.dtype == x.dtype for t in (*weights, *biases) if t is not None)
    in_float32 = rope is None or rope.cos_tk.dtype == rope.sin_tk.dtype == torch.float32
    return (
        alike
        and in_float32
        and len({bias is None for bias in biases}) == 1
        and not needs_gradient(x, *weights, *biases)
    )
