"""Plain torch: defines the operator; the CPU path. Shapes: b samples, t tokens, d width."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, offset: float) -> Tensor:
    """x / rms(x) * (offset + weight).

    Without an offset the product is taken in the type of `x`, with one in float32, as the models
    that were trained with either do it.
    """
    shape = (x.shape[-1],)
    if offset == 0.0:
        return functional.rms_norm(x, shape, weight.to(x.dtype), eps)
    return functional.rms_norm(x.float(), shape, offset + weight.float(), eps).to(x.dtype)


def adaptive_rms_norm(x_btd: Tensor, scale_bd: Tensor, shift_bd: Tensor, *, eps: float) -> Tensor:
    """x / rms(x) * (1 + scale) + shift, in float32, in the type of `x`."""
    normed = functional.rms_norm(x_btd.float(), (x_btd.shape[-1],), None, eps)
    scale, shift = scale_bd[:, None].float(), shift_bd[:, None].float()
    return (normed * (1 + scale) + shift).to(x_btd.dtype)


def add(x: Tensor, branch: Tensor) -> Tensor:
    """The residual stream behind a branch."""
    return x + branch


def gated_add(x_btd: Tensor, branch_btd: Tensor, gate_bd: Tensor) -> Tensor:
    """The residual stream behind a branch that a gate scales."""
    return x_btd + branch_btd * gate_bd[:, None]
