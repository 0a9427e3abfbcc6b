"""RMSNorm, also behind a residual addition and with a condition's scale, shift and gate.

The reference everywhere; on CUDA one Triton pass where `FASTVLA_KERNELS` names `rms_norm`.
Gradients flow to every tensor. Shapes: b samples, t tokens, d width. See README.md.
"""

from __future__ import annotations

from torch import Tensor

from fastvla_core.kernels.switch import takes_kernel

from . import reference

__all__ = ["MAX_WIDTH", "adaptive_rms_norm", "add_adaptive_rms_norm", "add_rms_norm", "rms_norm"]

# A row is held in registers; wider ones would spill.
MAX_WIDTH = 16_384


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0) -> Tensor:
    """x / rms(x) * (offset + weight) over the last dimension, in the type of `x`.

    Args:
        x: [..., d].
        weight: [d].
        eps: Added to the mean square.
        offset: 1 where the stored weight is the distance from one (Gemma).
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """
    if not _serves(x):
        return reference.rms_norm(x, weight, eps=eps, offset=offset)
    from .triton import RmsNorm

    return RmsNorm.apply(x, None, None, weight, None, eps, offset)


def add_rms_norm(
    x: Tensor, branch: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """x + branch, and that normalised as `rms_norm` does; all [..., d] of one type."""
    if not _serves(x, branch):
        total = reference.add(x, branch)
        return total, reference.rms_norm(total, weight, eps=eps, offset=offset)
    from .triton import RmsNorm

    return RmsNorm.apply(x, branch, None, weight, None, eps, offset)


def adaptive_rms_norm(x_btd: Tensor, scale_bd: Tensor, shift_bd: Tensor, *, eps: float) -> Tensor:
    """x / rms(x) * (1 + scale) + shift, scale and shift per sample; in the type of `x_btd`.

    Source: pi0.5, arXiv:2504.16054; adaptive norms of DiT, arXiv:2212.09748.
    """
    if not _serves(x_btd):
        return reference.adaptive_rms_norm(x_btd, scale_bd, shift_bd, eps=eps)
    from .triton import RmsNorm

    return RmsNorm.apply(x_btd, None, None, scale_bd, shift_bd, eps, 1.0)


def add_adaptive_rms_norm(
    x_btd: Tensor,
    branch_btd: Tensor,
    gate_bd: Tensor,
    scale_bd: Tensor,
    shift_bd: Tensor,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """x + branch * gate, and that normalised as `adaptive_rms_norm` does.

    The gate belongs to the branch, scale and shift to the norm behind it.
    """
    if not _serves(x_btd, branch_btd):
        total = reference.gated_add(x_btd, branch_btd, gate_bd)
        return total, reference.adaptive_rms_norm(total, scale_bd, shift_bd, eps=eps)
    from .triton import RmsNorm

    return RmsNorm.apply(x_btd, branch_btd, gate_bd, scale_bd, shift_bd, eps, 1.0)


def _serves(x: Tensor, branch: Tensor | None = None) -> bool:
    same = branch is None or (branch.dtype == x.dtype and branch.shape == x.shape)
    fits = x.numel() > 0 and x.shape[-1] <= MAX_WIDTH
    return takes_kernel("rms_norm", x) and same and fits
