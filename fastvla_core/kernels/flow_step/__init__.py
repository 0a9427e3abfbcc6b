"""One Euler step of a flow: from the expert's hidden state to the next noisy actions.

The reference everywhere; on CUDA, without gradients, the Triton kernel where `FASTVLA_KERNELS`
names `flow_step`. The same switch folds what depends on the time alone (time embeddings, adaptive
scales) ahead of the steps; see `fastvla_core.layers.flow_steps` and README.md.
Shapes: b batch, t action steps, a actions, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastvla_core.kernels.switch import needs_gradient, takes_kernel

from . import reference

__all__ = ["euler_step", "serves"]


def euler_step(
    x_bta: Tensor, hidden_btd: Tensor, weight_ad: Tensor, bias_a: Tensor | None, *, steps: int
) -> Tensor:
    """x - (hidden @ W^T + b) / steps: from time 1 (noise) down to 0 (data).

    Args:
        x_bta: Noisy actions, float32.
        hidden_btd: The expert's output at the action tokens.
        weight_ad, bias_a: The projection to velocities; the bias may be None.
        steps: Euler steps of the whole flow.
    Returns:
        float32 [b, t, a].
    Source: pi0, arXiv:2410.24164.
    """
    if serves(x_bta, hidden_btd, weight_ad, bias_a):
        from . import triton as chosen
    else:
        chosen = reference
    return chosen.euler_step(x_bta, hidden_btd, weight_ad, bias_a, steps=steps)


def serves(x_bta: Tensor, hidden_btd: Tensor, weight_ad: Tensor, bias_a: Tensor | None) -> bool:
    """Whether the kernel takes these: switched on, float32 actions, one type, no gradient."""
    if not takes_kernel("flow_step", hidden_btd) or x_bta.numel() == 0:
        return False
    alike = hidden_btd.dtype == weight_ad.dtype and x_bta.dtype == torch.float32
    return alike and not needs_gradient(x_bta, hidden_btd, weight_ad, bias_a)
