"""ONNX Runtime's own attention, in graphs that are exported for it: it never holds all the scores.

Shapes: b batch, h heads, t query tokens, s key tokens, d head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .spec import KeyValue, Mask


def serves(q_bhtd: Tensor, memory: KeyValue, mask: Mask | None) -> bool:
    """Whether a graph is being exported, and nothing is masked or shared by heads."""
    return (
        mask is None
        and q_bhtd.shape[1] == memory.key_bgsd.shape[1]
        and torch.onnx.is_in_onnx_export()
    )


def attend(q_bhtd: Tensor, memory: KeyValue) -> Tensor:
    """The graph's node for softmax attention, scaled by 1 / sqrt(d); [b, h, t, d].

    Source: "MultiHeadAttention" of ONNX Runtime's contrib operators.
    """
    heads = q_bhtd.shape[1]
    queries_btw, keys_bsw, values_bsw = (
        x_bhsd.transpose(1, 2).flatten(2) for x_bhsd in (q_bhtd, memory.key_bgsd, memory.value_bgsd)
    )
    mixed_btw = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (queries_btw, keys_bsw, values_bsw),
        {"num_heads": heads},
        dtype=q_bhtd.dtype,
        shape=queries_btw.shape,
        version=1,
    )
    return mixed_btw.unflatten(-1, (heads, -1)).transpose(1, 2)
