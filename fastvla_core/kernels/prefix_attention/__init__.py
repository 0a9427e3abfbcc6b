"""Attention of a prefix to itself, and of own tokens to a cached prefix and to themselves.

SDPA everywhere, by default. On CUDA, without gradients, a table of measured shapes chooses between
SDPA, FlexAttention and our Triton kernel; `FASTVLA_KERNELS=prefix_attention` takes the kernel for
every shape. Shapes: b batch, h query heads, g key/value heads, t query tokens, s key tokens of
prefix and own tokens together, d head dimension. See README.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastvla_core.kernels.switch import needs_gradient, takes_kernel

from . import onnx_runtime, reference
from .choice import Backend, Shape, choose
from .spec import BlockMask, KeyValue, Mask, block_mask, dense_mask

__all__ = [
    "MAX_HEAD_DIM",
    "BlockMask",
    "KeyValue",
    "Mask",
    "block_mask",
    "dense_mask",
    "prefix_attention",
]

# Beyond this the tiles of keys and values do not fit the shared memory that every GPU grants.
MAX_HEAD_DIM = 256


def prefix_attention(
    q_bhtd: Tensor,
    own: KeyValue,
    mask: Mask | None = None,
    *,
    prefix: KeyValue | None = None,
) -> Tensor:
    """Softmax attention, scaled by 1 / sqrt(d); returns [b, h, t, d].

    Args:
        q_bhtd: Queries after rotation; h is a multiple of g.
        own: Keys and values.
        mask: Over the prefix' keys, then the own ones: a `BlockMask`, which every implementation
            takes, or a boolean broadcastable to [b, 1, t, s], which only SDPA takes. Each query
            has to see a key. None lets all be seen.
        prefix: Keys and values that come before the own ones; SDPA copies both into one tensor,
            the kernel reads them where they lie.
    Source: Ainslie et al., arXiv:2305.13245 (grouped queries); pi0, arXiv:2410.24164 (blocks).
    """
    if not isinstance(mask, BlockMask) or not (q_bhtd.is_cuda or _on(q_bhtd)):
        return _sdpa(q_bhtd, own, mask, prefix)
    backend = _backend(q_bhtd, own, prefix)
    if backend == "triton":
        from . import triton

        return triton.attend(q_bhtd, own, mask, prefix)[0]
    if backend == "flex":
        from . import flex

        return flex.attend(q_bhtd, own if prefix is None else prefix.then(own), mask)
    return _sdpa(q_bhtd, own, mask, prefix)


def _sdpa(q_bhtd: Tensor, own: KeyValue, mask: Mask | None, prefix: KeyValue | None) -> Tensor:
    memory = own if prefix is None else prefix.then(own)
    if onnx_runtime.serves(q_bhtd, memory, mask):
        return onnx_runtime.attend(q_bhtd, memory)
    return reference.attend(q_bhtd, memory, dense_mask(mask))


def _on(q_bhtd: Tensor) -> bool:
    return takes_kernel("prefix_attention", q_bhtd)


def _backend(q_bhtd: Tensor, own: KeyValue, prefix: KeyValue | None) -> Backend:
    parts = (own,) if prefix is None else (prefix, own)
    tensors = [t for part in parts for t in (part.key_bgsd, part.value_bgsd)]
    if needs_gradient(q_bhtd, *tensors) or torch.compiler.is_compiling():
        return "sdpa"
    alike = all(t.dtype == q_bhtd.dtype for t in tensors)
    fits = alike and q_bhtd.shape[-1] <= MAX_HEAD_DIM and q_bhtd.numel() > 0
    if _on(q_bhtd) and fits:
        return "triton"
    keys = 0 if prefix is None else prefix.key_bgsd.shape[2]
    best = choose(Shape.of(q_bhtd, own.key_bgsd, prefix_keys=keys), q_bhtd.device)
    return best if best != "triton" or fits else "sdpa"
