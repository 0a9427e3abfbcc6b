"""Flow matching: which time, which path, which velocity. Time 1 is noise, time 0 is data.

Shapes: b batch, s flow samples, t action steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class FlowSamples:
    """Where a velocity is learned.

    Attributes:
        noisy, target: Points and the velocity there, [b, t, a] or [b, s, t, a].
        time: Of the points, [b]; with flow samples [b, s, 1] or [b, s, t].
        weight: How much each point counts, broadcastable to `noisy`, 1 on average; None for all
            alike.
    """

    noisy: Tensor
    time: Tensor
    target: Tensor
    weight: Tensor | None = None


def sample_time(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Training times: Beta(1.5, 1) * 0.999 + 0.001, which favours noise; float32, on the CPU.

    Source: pi0, arXiv:2410.24164, appendix B.
    """
    # The distribution function of Beta(a, 1) is x**a: its inverse turns uniform into Beta.
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return uniform ** (1 / 1.5) * 0.999 + 0.001


def interpolate(action_bsta: Tensor, noise_bsta: Tensor, time_bst: Tensor) -> Tensor:
    """The point at `time` on the straight path from the action (0) to the noise (1).

    Args:
        time_bst: Per sample (t = 1) or per action step.
    """
    time = time_bst[..., None]
    return time * noise_bsta + (1 - time) * action_bsta


def velocity_target(action_bsta: Tensor, noise_bsta: Tensor) -> Tensor:
    """Derivative of `interpolate` by the time."""
    return noise_bsta - action_bsta


def integrate(velocity: Callable[[Tensor, float], Tensor], noise: Tensor, *, steps: int) -> Tensor:
    """Follow the velocity from noise (time 1) to data (time 0) with Euler steps.

    Args:
        velocity: Called with the present point and its time.
        noise: Where to start, any shape.
        steps: Euler steps of size 1 / steps.
    """
    x = noise
    for step in range(steps):
        x = x - velocity(x, 1.0 - step / steps) / steps
    return x
