"""Plain torch: defines the operator; the CPU path. See `fastvla_core.kernels.flow_step`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def euler_step(
    x_bta: Tensor, hidden_btd: Tensor, weight_ad: Tensor, bias_a: Tensor | None, *, steps: int
) -> Tensor:
    """x - velocity / steps, where the velocity is the projected hidden state."""
    velocity = functional.linear(hidden_btd.to(weight_ad.dtype), weight_ad, bias_a).float()
    return x_bta - velocity / steps
