"""Errors of a chunk to one number.

Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

from torch import Tensor


def mean_error(errors_bta: Tensor, is_pad_bt: Tensor | None) -> Tensor:
    """The mean over everything, without the steps that `is_pad` marks if it is given."""
    if is_pad_bt is None:
        return errors_bta.mean()
    real_bt1 = ~is_pad_bt[..., None]
    count = (real_bt1.sum() * errors_bta.shape[-1]).clamp_min(1)
    return (errors_bta * real_bt1).sum() / count
