"""The network of ACT.

Shapes: b batch, t action steps, a action dimensions, s state dimensions, n observation tokens,
l latent dimensions, w width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from fastvla_core.models.backbones.resnet import FrozenBatchNorm2d, ResNet
from fastvla_core.models.policies.act.config import ActConfig
from fastvla_core.models.policies.act.layers import Decoder, Encoder
from fastvla_core.models.policies.act.positions import map_positions, sequence_positions
from fastvla_core.models.policies.visuomotor.images import image_name
from fastvla_core.models.policies.visuomotor.loss import mean_error
from fastvla_core.models.seeding import seeded

Batch: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ObservationTokens:
    """What the encoder reads: the latent, the state, and the cells of every camera's map.

    Attributes:
        x_bnw, positions_1nw: Tokens and their positions.
    """

    x_bnw: Tensor
    positions_1nw: Tensor


class LatentEncoder(nn.Module):
    """A chunk and the state it starts from to the mean and log-variance of a latent."""

    positions: Tensor

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width = config.dim_model
        self.encoder = Encoder(config, depth=config.n_vae_encoder_layers)
        self.summary = nn.Embedding(1, width)
        self.state_in = nn.Linear(config.features.state_dim, width)
        self.action_in = nn.Linear(config.action_dim, width)
        self.latent_out = nn.Linear(width, 2 * config.latent_dim)
        self.register_buffer("positions", sequence_positions(2 + config.chunk_size, width))

    def forward(self, state_bs: Tensor, action_bta: Tensor, is_pad_bt: Tensor | None) -> Tensor:
        """[b, 2 l]; steps that `is_pad` marks are not looked at."""
        summary = self.summary.weight.expand(len(state_bs), -1, -1)
        tokens = [summary, self.state_in(state_bs)[:, None], self.action_in(action_bta)]
        allowed = None
        if is_pad_bt is not None:
            real = torch.cat([is_pad_bt.new_ones(len(is_pad_bt), 2), ~is_pad_bt], dim=1)
            allowed = real[:, None, None]
        x = self.encoder(torch.cat(tokens, dim=1), self.positions, allowed)
        return self.latent_out(x[:, 0])


class Act(nn.Module):
    """A whole chunk in one pass, from the cameras' feature maps and the state.

    A batch holds
        image_0, image_1, ...: float [b, 3, height, width], normalised.
        state: float32 [b, s], normalised.
        action: float32 [b, t, a], normalised; for `loss` only.
        action_is_pad: bool [b, t], optional; what it marks does not count in `loss`.
    Source: ACT, arXiv:2304.13705.
    """

    # Small and sensitive; the encoder of the latent is of no use behind training.
    full_precision: ClassVar[tuple[str, ...]] = ("state_in", "latent_in", "action_out", "latent.*")

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width = config.dim_model
        self.config = config
        self.backbone = ResNet(config.backbone, norm=FrozenBatchNorm2d)
        self.image_in = nn.Conv2d(config.backbone.channels, width, 1)
        self.state_in = nn.Linear(config.features.state_dim, width)
        self.latent_in = nn.Linear(config.latent_dim, width)
        self.vector_positions = nn.Embedding(2, width)
        self.encoder = Encoder(config, depth=config.n_encoder_layers)
        self.decoder = Decoder(config)
        self.step_positions = nn.Embedding(config.chunk_size, width)
        self.action_out = nn.Linear(width, config.action_dim)
        self.latent = LatentEncoder(config) if config.use_vae else None

    def compile_parts(self) -> None:
        """Compile backbone, encoder and decoder, each by itself."""
        for part in (self.backbone, self.encoder, self.decoder):
            part.compile(dynamic=False)

    def tokens(self, batch: Batch, latent_bl: Tensor) -> ObservationTokens:
        """[latent, state, cells of each camera's map]."""
        dtype = self.state_in.weight.dtype
        tokens = [
            self.latent_in(latent_bl.to(dtype))[:, None],
            self.state_in(batch["state"].to(dtype))[:, None],
        ]
        positions = [self.vector_positions.weight[None]]
        for index in range(len(self.config.features.cameras)):
            seen = self.image_in(self.backbone(batch[image_name(index)].to(dtype)))
            tokens.append(seen.flatten(2).mT)
            place = map_positions(
                *seen.shape[-2:], channels=self.config.dim_model, device=seen.device
            )
            positions.append(place.to(dtype))
        return ObservationTokens(torch.cat(tokens, dim=1), torch.cat(positions, dim=1))

    def decode(self, tokens: ObservationTokens, memory_bnw: Tensor) -> Tensor:
        """The decoder's output [b, t, w], from tokens that the encoder has read."""
        positions = self.step_positions.weight[None]
        start = positions.new_zeros(len(memory_bnw), *positions.shape[1:])
        return self.decoder(start, positions, memory_bnw, tokens.positions_1nw)

    def chunk(self, batch: Batch, latent_bl: Tensor) -> Tensor:
        """Normalised actions, float32 [b, t, a]."""
        tokens = self.tokens(batch, latent_bl)
        memory = self.encoder(tokens.x_bnw, tokens.positions_1nw)
        return self.action_out(self.decode(tokens, memory)).float()

    def forward(self, batch: Batch, noise: Tensor) -> Tensor:
        """Normalised actions, float32 [b, t, a]; the latent is zero, and nothing is random."""
        return self.chunk(batch, self.zero_latent(batch))

    def zero_latent(self, batch: Batch) -> Tensor:
        """The middle of the latent's distribution, [b, l]."""
        return batch["state"].new_zeros(len(batch["state"]), self.config.latent_dim)

    def losses(self, batch: Batch, noise_bl: Tensor) -> dict[str, Tensor]:
        """What `loss` returns, for given noise of the latent."""
        action, is_pad = batch["action"].float(), batch.get("action_is_pad")
        if self.latent is None:
            errors = (self.chunk(batch, self.zero_latent(batch)) - action).abs()
            l1 = mean_error(errors, is_pad)
            return {"loss": l1, "l1_loss": l1.detach(), "loss_per_dim": _per_dim(errors)}
        dtype = self.state_in.weight.dtype
        parameters = self.latent(batch["state"].to(dtype), action.to(dtype), is_pad).float()
        mean_bl, log_variance_bl = parameters.chunk(2, dim=-1)
        drawn = mean_bl + (log_variance_bl / 2).exp() * noise_bl
        errors = (self.chunk(batch, drawn) - action).abs()
        l1 = mean_error(errors, is_pad)
        divergence = divergence_from_normal(mean_bl, log_variance_bl)
        return {
            "loss": l1 + self.config.kl_weight * divergence,
            "l1_loss": l1.detach(),
            "kld_loss": divergence.detach(),
            "loss_per_dim": _per_dim(errors),
        }

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean absolute error, and the divergence of the latent from the standard normal.

        Args:
            batch: See the class.
            generator: Source of the latent's noise and of dropout; any device.
        Returns:
            loss: scalar with gradient. l1_loss, kld_loss: its parts. loss_per_dim: [a], the
            absolute error per column. All but the first are detached.
        """
        state = batch["state"]
        shape = (len(state), self.config.latent_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        with seeded(generator, state.device):
            return self.losses(batch, noise.to(state.device))


def divergence_from_normal(mean_bl: Tensor, log_variance_bl: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the standard normal, summed over l, the mean over b.

    Source: Auto-encoding variational Bayes, arXiv:1312.6114, appendix B.
    """
    inside = 1 + log_variance_bl - mean_bl.square() - log_variance_bl.exp()
    return (-0.5 * inside).sum(dim=-1).mean()


def _per_dim(errors_bta: Tensor) -> Tensor:
    return errors_bta.detach().mean(dim=(0, 1))
