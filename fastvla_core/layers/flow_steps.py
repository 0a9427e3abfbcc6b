"""The steps of a flow: their times, and the way from the expert's output to the next point.

Shapes: b batch, s flow steps, t action steps, a actions, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvla_core.kernels.flow_step import euler_step
from fastvla_core.kernels.switch import takes_kernel
from fastvla_core.layers.linear import as_projection


def step_times(steps: int, *, device: torch.device) -> Tensor:
    """The times at which Euler steps of size 1 / steps start, from 1 (noise); float32 [s]."""
    return torch.tensor([1.0 - step / steps for step in range(steps)], device=device)


def folds_steps(layer: nn.Module, x_bta: Tensor) -> bool:
    """Whether `step_by` has a kernel for a flow that ends in this layer: on, a plain product."""
    weight = next(layer.parameters(), x_bta)
    if torch.is_grad_enabled() or not takes_kernel("flow_step", weight):
        return False
    return as_projection(layer, x_bta) is not None


def step_by(layer: nn.Module, x_bta: Tensor, hidden_btd: Tensor, *, steps: int) -> Tensor:
    """x - layer(hidden) / steps; in one kernel where `folds_steps` says so."""
    projection = as_projection(layer, x_bta)
    if projection is None:
        weight = next(layer.parameters(), x_bta)
        return x_bta - layer(hidden_btd.to(weight.dtype)).float() / steps
    weight = projection.weight
    return euler_step(x_bta, hidden_btd.to(weight.dtype), weight, projection.bias, steps=steps)
