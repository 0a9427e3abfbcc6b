"""A U-Net along the time of a chunk, conditioned on the observation.

Shapes: b batch, t action steps (halved from level to level), c channels, a action dimensions,
g values of the condition.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.models.policies.diffusion.config import LAST_GROUPS, DiffusionConfig


def step_embedding(timesteps_b: Tensor, width: int) -> Tensor:
    """Sines and cosines of training steps, float32 [b, width]."""
    half = width // 2
    numbers = torch.arange(half, device=timesteps_b.device)
    rates = torch.exp(numbers * -(math.log(10_000) / (half - 1)))
    angles = timesteps_b[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, given: int, width: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(given, width, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, width)

    def forward(self, x_bct: Tensor) -> Tensor:
        """[b, given, t] to [b, width, t]."""
        return functional.mish(self.norm(self.conv(x_bct)))


class ConditionedBlock(nn.Module):
    """Two convolution blocks; between them the condition scales and shifts every channel.

    Source: FiLM, arXiv:1709.07871.
    """

    def __init__(self, given: int, width: int, config: DiffusionConfig) -> None:
        super().__init__()
        kernel, groups = config.kernel_size, config.n_groups
        condition = config.diffusion_step_embed_dim + config.condition_dim
        self.scales = config.use_film_scale_modulation
        self.block1 = ConvBlock(given, width, kernel=kernel, groups=groups)
        self.film = nn.Linear(condition, 2 * width if self.scales else width)
        self.block2 = ConvBlock(width, width, kernel=kernel, groups=groups)
        self.shortcut = nn.Identity() if given == width else nn.Conv1d(given, width, 1)

    def forward(self, x_bct: Tensor, condition_bg: Tensor) -> Tensor:
        """[b, given, t] to [b, width, t]."""
        change = self.film(functional.mish(condition_bg))[..., None]
        y = self.block1(x_bct)
        if self.scales:
            scale, shift = change.chunk(2, dim=1)
            y = scale * y + shift
        else:
            y = y + change
        return self.block2(y) + self.shortcut(x_bct)


class Level(nn.Module):
    """Two conditioned blocks, then a change of the length if there is one."""

    def __init__(self, given: int, width: int, config: DiffusionConfig, resample: nn.Module):
        super().__init__()
        self.block1 = ConditionedBlock(given, width, config)
        self.block2 = ConditionedBlock(width, width, config)
        self.resample = resample

    def forward(self, x_bct: Tensor, condition_bg: Tensor) -> tuple[Tensor, Tensor]:
        """What the blocks give, before and after the change of the length."""
        x = self.block2(self.block1(x_bct, condition_bg), condition_bg)
        return x, self.resample(x)


class UNet(nn.Module):
    """Noisy actions, their step and the observation to what the noise (or the actions) is.

    Source: Diffusion Policy, arXiv:2303.04137.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        widths, embed = config.down_dims, config.diffusion_step_embed_dim
        self.embed_width = embed
        self.step_in = nn.Linear(embed, 4 * embed)
        self.step_out = nn.Linear(4 * embed, embed)
        given = (config.action_dim, *widths[:-1])
        self.down = nn.ModuleList(
            Level(a, b, config, nn.Conv1d(b, b, 3, stride=2, padding=1))
            for a, b in zip(given[:-1], widths[:-1])
        )
        self.down.append(Level(given[-1], widths[-1], config, nn.Identity()))
        self.middle = Level(widths[-1], widths[-1], config, nn.Identity())
        pairs = list(itertools.pairwise(widths))
        self.up = nn.ModuleList(
            Level(2 * deep, wide, config, nn.ConvTranspose1d(wide, wide, 4, stride=2, padding=1))
            for wide, deep in reversed(pairs)
        )
        kernel = config.kernel_size
        self.last = ConvBlock(widths[0], widths[0], kernel=kernel, groups=LAST_GROUPS)
        self.action_out = nn.Conv1d(widths[0], config.action_dim, 1)

    def forward(self, noisy_bta: Tensor, timesteps_b: Tensor, condition_bg: Tensor) -> Tensor:
        """The network's word on noisy actions, float32 [b, t, a].

        Args:
            timesteps_b: int64, training steps.
            condition_bg: The observation.
        """
        dtype = self.step_in.weight.dtype
        step = step_embedding(timesteps_b, self.embed_width).to(dtype)
        step = self.step_out(functional.mish(self.step_in(step)))
        condition = torch.cat([step, condition_bg.to(dtype)], dim=-1)
        x, skips = noisy_bta.to(dtype).mT, list[Tensor]()
        for level in self.down:
            skip, x = level(x, condition)
            skips.append(skip)
        x, _ = self.middle(x, condition)
        for level in self.up:
            _, x = level(torch.cat([x, skips.pop()], dim=1), condition)
        return self.action_out(self.last(x)).mT.float()
