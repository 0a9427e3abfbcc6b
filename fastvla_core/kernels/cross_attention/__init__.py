"""Cross-attention, such as of words over image tokens, and the gated way back to the words.

The reference everywhere; on CUDA the Triton kernels where `FASTVLA_KERNELS` names
`cross_attention`, with gradients too. Shapes: b batch, h query heads, g key/value heads, t query
tokens, s key tokens, d head dimension, n and k features. See README.md.
"""

from __future__ import annotations

from torch import Tensor

from fastvla_core.kernels.prefix_attention import MAX_HEAD_DIM, KeyValue
from fastvla_core.kernels.switch import takes_kernel

from . import reference

__all__ = ["cross_attention", "gated_projection"]


def cross_attention(q_bhtd: Tensor, memory: KeyValue, key_mask_bs: Tensor) -> Tensor:
    """Softmax attention, scaled by 1 / sqrt(d), to the keys that are real.

    Args:
        q_bhtd: Queries; h is a multiple of g.
        memory: Keys and values.
        key_mask_bs: True where a key is real; at least one per sample. One row serves all samples.
    Returns:
        [b, h, t, d]. Gradients flow to queries, keys and values.
    """
    key, value = memory.key_bgsd, memory.value_bgsd
    alike = q_bhtd.dtype == key.dtype == value.dtype
    fits = alike and q_bhtd.shape[-1] <= MAX_HEAD_DIM and q_bhtd.numel() > 0
    if not (takes_kernel("cross_attention", q_bhtd) and fits):
        return reference.cross_attention(q_bhtd, memory, key_mask_bs)
    from .triton import CrossAttention

    result: Tensor = CrossAttention.apply(q_bhtd, key, value, key_mask_bs)
    return result


def gated_projection(
    x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor
) -> Tensor:
    """x + tanh(gate) * (hidden @ W^T + b).

    Args:
        x: [..., n], the residual stream.
        hidden: [..., k], what the branch has found.
        weight: [n, k].
        bias: [n] or None.
        gate: One element; 0 closes the branch.
    Returns:
        [..., n]. Gradients flow to all five.
    Source: Flamingo, arXiv:2204.14198.
    """
    alike = x.dtype == hidden.dtype == weight.dtype
    fits = alike and gate.numel() == 1 and x.numel() > 0
    if not (takes_kernel("cross_attention", x) and fits):
        return reference.gated_projection(x, hidden, weight, bias, gate)
    from .triton import GatedProjection

    result: Tensor = GatedProjection.apply(x, hidden, weight, bias, gate)
    return result
