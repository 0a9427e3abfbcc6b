"""Plain torch: defines the operator; the CPU path, and SDPA on a GPU.

Shapes: b batch, h query heads, g key/value heads, t query tokens, s key tokens, d head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .spec import KeyValue


def attend(q_bhtd: Tensor, memory: KeyValue, allowed: Tensor | None) -> Tensor:
    """Softmax attention to all of `memory`; see `fastvla_core.kernels.prefix_attention`."""
    # The backward pass of the CPU's flash attention is about three times slower than plain
    # matrix products at the sizes of a policy (measured on two cores). The fake tensors of a memory
    # estimate are a subclass: they stand for a GPU's.
    on_cpu = q_bhtd.device.type == "cpu" and type(q_bhtd) is Tensor
    if torch.is_grad_enabled() and on_cpu:
        return by_products(q_bhtd, memory, allowed)
    return functional.scaled_dot_product_attention(
        q_bhtd,
        memory.key_bgsd,
        memory.value_bgsd,
        attn_mask=allowed,
        enable_gqa=bool(q_bhtd.shape[1] != memory.key_bgsd.shape[1]),
    )


def by_products(q_bhtd: Tensor, memory: KeyValue, allowed: Tensor | None) -> Tensor:
    """The same by matrix products, which holds all the scores."""
    b, h, t, d = q_bhtd.shape
    groups = memory.key_bgsd.shape[1]
    q_bgrd = q_bhtd.reshape(b, groups, h // groups * t, d) * d**-0.5
    scores = (q_bgrd @ memory.key_bgsd.mT).view(b, h, t, -1)
    if allowed is not None:
        # Adding needs no pass over the scores in the backward direction; masked_fill does.
        hidden = torch.zeros_like(allowed, dtype=scores.dtype)
        scores = scores + hidden.masked_fill_(~allowed, float("-inf"))
    weights = scores.softmax(dim=-1).to(memory.value_bgsd.dtype)
    return (weights.view(b, groups, h // groups * t, -1) @ memory.value_bgsd).view(b, h, t, d)
