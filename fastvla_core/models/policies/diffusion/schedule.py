"""How noise is added to actions, and taken away again step by step: DDPM and DDIM.

Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
Prediction: TypeAlias = Literal["epsilon", "sample"]
_LEAST_VARIANCE = 1e-20


def signal_shares(schedule: BetaSchedule, *, steps: int, start: float, end: float) -> Tensor:
    """How much of the actions' variance is left behind each step, float32 [steps], falling.

    Args:
        start, end: Noise that the first and the last step add; the cosine has its own.
    Source: DDPM, arXiv:2006.11239, equation 4; the cosine: arXiv:2102.09672, equation 17.
    """
    if schedule == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float32)
    elif schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    else:
        bars = [_cosine(step / steps) for step in range(steps + 1)]
        limited = [min(1 - after / before, 0.999) for before, after in itertools.pairwise(bars)]
        betas = torch.tensor(limited, dtype=torch.float32)
    return torch.cumprod(1.0 - betas, dim=0)


def _cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(ABC):
    """Takes noise away.

    Attributes:
        shares: See `signal_shares`.
        steps: Denoising steps, evenly spread over those of training.
        prediction: What the network says.
        limit: Largest magnitude that actions can have; None for any.
    """

    shares: Tensor
    steps: int
    prediction: Prediction
    limit: float | None

    @property
    def timesteps(self) -> list[int]:
        """The training steps that are gone back over, the noisiest first."""
        every = len(self.shares) // self.steps
        return [every * index for index in reversed(range(self.steps))]

    def noised(self, action_bta: Tensor, noise_bta: Tensor, timesteps_b: Tensor) -> Tensor:
        """Actions as they are at training steps, int64 [b]."""
        share = self.shares.to(action_bta.device)[timesteps_b][:, None, None]
        return share.sqrt() * action_bta + (1 - share).sqrt() * noise_bta

    def denoised(self, output_bta: Tensor, x_bta: Tensor, *, share: Tensor) -> Tensor:
        """The actions that the network believes in at x, within the limit.

        Args:
            share: Of the signal at x.
        """
        actions = output_bta
        if self.prediction == "epsilon":
            actions = (x_bta - (1 - share).sqrt() * output_bta) / share.sqrt()
        return actions if self.limit is None else actions.clamp(-self.limit, self.limit)

    @abstractmethod
    def step(
        self, output_bta: Tensor, x_bta: Tensor, *, index: int, added: Sequence[Tensor]
    ) -> Tensor:
        """The point one step further back.

        Args:
            output_bta: What the network says at x.
            index: Into `timesteps`.
            added: Noise [b, t, a] of each step, where the sampler adds any.
        """

    def _shares_around(self, index: int) -> tuple[Tensor, Tensor]:
        """Those at a step and behind it; the end is all signal."""
        timestep = self.timesteps[index]
        before = timestep - len(self.shares) // self.steps
        one = torch.ones((), dtype=self.shares.dtype)
        return self.shares[timestep], self.shares[before] if before >= 0 else one


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddpm(Sampler):
    """Goes to the expected point and adds noise again, except behind the last step.

    Source: DDPM, arXiv:2006.11239, equations 6, 7 and 15.
    """

    def step(
        self, output_bta: Tensor, x_bta: Tensor, *, index: int, added: Sequence[Tensor]
    ) -> Tensor:
        """See `Sampler.step`."""
        share, after = self._shares_around(index)
        kept = share / after
        actions = self.denoised(output_bta, x_bta, share=share)
        towards = after.sqrt() * (1 - kept) / (1 - share)
        staying = kept.sqrt() * (1 - after) / (1 - share)
        mean = towards * actions + staying * x_bta
        if self.timesteps[index] == 0:
            return mean
        variance = ((1 - after) / (1 - share) * (1 - kept)).clamp_min(_LEAST_VARIANCE)
        return mean + variance.sqrt() * added[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddim(Sampler):
    """Keeps the same noise all the way: fewer steps do, and nothing is random but the start.

    Source: DDIM, arXiv:2010.02502, equation 12 with sigma 0.
    """

    def step(
        self, output_bta: Tensor, x_bta: Tensor, *, index: int, added: Sequence[Tensor]
    ) -> Tensor:
        """See `Sampler.step`."""
        share, after = self._shares_around(index)
        actions = self.denoised(output_bta, x_bta, share=share)
        noise = output_bta
        if self.prediction == "sample":
            noise = (x_bta - share.sqrt() * output_bta) / (1 - share).sqrt()
        return after.sqrt() * actions + (1 - after).sqrt() * noise
