"""Means and standard deviations of states and actions, and normalising with them.

Shapes: n samples, t action steps, a action dimensions, s state dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-8


@dataclass(frozen=True, slots=True)
class MeanStd:
    """Mean and standard deviation, broadcast over leading dimensions; float32."""

    mean: Tensor
    std: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        """(x - mean) / (std + 1e-8)."""
        return (x - self.mean) / (self.std + EPS)

    def unnormalize(self, x: Tensor) -> Tensor:
        """x * std + mean."""
        return x * self.std + self.mean


def mean_std(samples: Tensor, *, floor: float | Tensor = 1e-3) -> MeanStd:
    """Statistics over the first dimension, computed in float64.

    Args:
        samples: [n, ...].
        floor: Smallest standard deviation [rad or m], one for all or one per dimension; keeps a
            joint that hardly moved in the recordings from being blown up when it does move.
    """
    exact = samples.double()
    return MeanStd(
        exact.mean(dim=0).float(),
        exact.std(dim=0, unbiased=False).float().clamp_min(torch.as_tensor(floor)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a policy's processors normalise with.

    Attributes:
        state: Per dimension, [s].
        action: Per chunk step and dimension, [t, a], of the (relative) targets.
    """

    state: MeanStd
    action: MeanStd


def identity_statistics(*, state: int, steps: int, action: int) -> Statistics:
    """Mean 0 and standard deviation 1, for tests and untrained policies."""
    return Statistics(
        state=MeanStd(torch.zeros(state), torch.ones(state)),
        action=MeanStd(torch.zeros(steps, action), torch.ones(steps, action)),
    )
