"""Plain torch: defines the operators; the CPU path. See `fastvla_core.kernels.cross_attention`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fastvla_core.kernels.prefix_attention import KeyValue
from fastvla_core.kernels.prefix_attention.reference import attend


def cross_attention(q_bhtd: Tensor, memory: KeyValue, key_mask_bs: Tensor) -> Tensor:
    """Softmax attention to the real keys."""
    return attend(q_bhtd, memory, key_mask_bs[:, None, None])


def gated_projection(
    x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor
) -> Tensor:
    """x + tanh(gate) * (hidden @ W^T + b)."""
    return x + gate.tanh() * functional.linear(hidden, weight, bias)
