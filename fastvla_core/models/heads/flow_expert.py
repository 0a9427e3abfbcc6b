"""The part that pi0, pi0.5 and SmolVLA share: a prefix read once, a velocity that follows noise.

Shapes: b batch, c cameras, l language tokens, p prefix tokens, t action steps, a action dimensions
(padded), s suffix tokens, d expert width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.layers.attention import BlockMask, KeyValue, block_mask
from fastvla_core.layers.flow_steps import folds_steps, step_by, step_times
from fastvla_core.layers.norm import Steering
from fastvla_core.layers.transformer import LayerSteering
from fastvla_core.models.backbones.decoder import Decoder
from fastvla_core.models.flow_prefix import FlowPrefix, Velocity
from fastvla_core.models.policies.flow_vla import flow

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class PrefixTokens:
    """The embedded observation.

    Attributes:
        x_bpw: Embeddings.
        mask_bp: True where a token is real.
        blocks_p: Attention block of each token; see `block_mask`.
    """

    x_bpw: Tensor
    mask_bp: Tensor
    blocks_p: Tensor

    @property
    def positions_bp(self) -> Tensor:
        """Integer positions; what is masked repeats the position before it."""
        return self.mask_bp.cumsum(dim=1) - 1

    @property
    def allowed(self) -> BlockMask:
        """Who may look at whom, over [b, 1, p, p]."""
        return block_mask(self.blocks_p, self.blocks_p, self.mask_bp)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the expert reads of the observation: keys and values per layer, and which are real."""

    layers: tuple[KeyValue, ...]
    mask_bp: Tensor

    @property
    def length_b1(self) -> Tensor:
        """Real tokens per sample: the position of the first token behind them."""
        return self.mask_bp.sum(dim=1, keepdim=True)

    def seen_by(self, tokens: int) -> BlockMask:
        """The mask of as many tokens that all look at the real prefix and at nothing else."""
        block = torch.zeros(1, dtype=torch.long, device=self.mask_bp.device)
        return block_mask(block.expand(tokens), block.expand(self.mask_bp.shape[1]), self.mask_bp)


@dataclass(frozen=True, slots=True)
class ExpertSteering:
    """What a condition makes of all adaptive norms of an expert."""

    layers: tuple[LayerSteering, ...]
    final: Steering

    def at(self, row: int) -> ExpertSteering:
        """What one row of the condition asks for, for all samples."""
        return ExpertSteering(tuple(layer.at(row) for layer in self.layers), self.final.at(row))


@dataclass(frozen=True, slots=True)
class TimeFeatures:
    """What depends on the flow time alone.

    Attributes:
        embedded_bd: For the expert's input, or, where norms are adaptive, their condition.
        steering: What adaptive norms make of it, once that is known.
    """

    embedded_bd: Tensor
    steering: ExpertSteering | None = None

    def at(self, row: int) -> TimeFeatures:
        """Those of one time, for all samples."""
        steering = None if self.steering is None else self.steering.at(row)
        return TimeFeatures(self.embedded_bd[row : row + 1], steering)


@dataclass(frozen=True, slots=True)
class Suffix:
    """The expert's input at one flow time.

    Attributes:
        x_bsd: Embeddings, the noisy actions last.
        blocks_s: Attention block of each token among themselves.
        condition_bd: What steers adaptive norms; None where the norms are plain.
        steering: What the norms made of the condition ahead; None where they still have to.
    """

    x_bsd: Tensor
    blocks_s: Tensor
    condition_bd: Tensor | None = None
    steering: ExpertSteering | None = None

    def positions_bs(self, prefix: Prefix) -> Tensor:
        """Integer positions: right behind the real prefix tokens."""
        return prefix.length_b1 + torch.arange(self.x_bsd.shape[1], device=self.x_bsd.device)

    def allowed(self, prefix: Prefix) -> BlockMask:
        """Who may look at whom, over [b, 1, s, p + s]: the real prefix, and own blocks."""
        mask_bp, own = prefix.mask_bp, self.blocks_s
        # The whole prefix comes before every own block.
        before = own.new_full((mask_bp.shape[1],), -1)
        mask = torch.cat([mask_bp, mask_bp.new_ones(len(mask_bp), len(own))], dim=1)
        return block_mask(own, torch.cat([before, own]), mask)


class FlowExpertModel(nn.Module, ABC):
    """A vision-language prefix and a flow-matching expert that reads its keys and values.

    A batch holds
        images: float [b, c, 3, height, width] in [-1, 1], RGB.
        image_mask: bool [b, c], False where a camera is missing.
        tokens, token_mask: int64 and bool [b, l], at least one real token per row.
        state: float32 [b, S], normalised and padded with zeros.
        action: float32 [b, t, a], normalised and padded; for `loss` only.
        action_is_pad: bool [b, t], optional; what it marks does not count in `loss`.
    Source: pi0, arXiv:2410.24164.
    """

    config: Any
    action_out: nn.Linear

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The vision tower."""

    @property
    @abstractmethod
    def language_model(self) -> Decoder:
        """The language model that reads the prefix."""

    @abstractmethod
    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w], before any scaling."""

    @abstractmethod
    def prefix_tokens(self, batch: Batch) -> PrefixTokens:
        """Embed the observation."""

    @abstractmethod
    def read_prefix(self, tokens: PrefixTokens) -> Prefix:
        """Run the language model over the embedded observation."""

    @abstractmethod
    def time_features(self, time_b: Tensor) -> TimeFeatures:
        """What depends on the flow times alone (float32, 1 is noise)."""

    @abstractmethod
    def suffix_at(self, noisy_bta: Tensor, features: TimeFeatures, batch: Batch) -> Suffix:
        """Embed noisy actions, one time per sample or one for all."""

    def suffix_tokens(self, noisy_bta: Tensor, time_b: Tensor, batch: Batch) -> Suffix:
        """Embed noisy actions at their flow times."""
        return self.suffix_at(noisy_bta, self.time_features(time_b), batch)

    def folded_times(self, time_s: Tensor) -> TimeFeatures:
        """The features of all times of a flow at once; `at` takes one out."""
        return self.time_features(time_s)

    @abstractmethod
    def read_suffix(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """Run the expert; [b, s, d] behind its final norm."""

    @abstractmethod
    def velocity_of(self, output_btd: Tensor) -> Tensor:
        """The expert's output at the action tokens to velocities [b, t, a], float32."""

    def velocity(self, noisy_bta: Tensor, time_b: Tensor, prefix: Prefix, batch: Batch) -> Tensor:
        """Velocities [b, t, a] at the given points and times."""
        output = self.read_suffix(self.suffix_tokens(noisy_bta, time_b, batch), prefix)
        return self.velocity_of(output[:, -noisy_bta.shape[1] :])

    def errors(self, batch: Batch, noise_bta: Tensor, time_b: Tensor) -> Tensor:
        """Squared errors of the velocity, [b, t, a], padded dimensions included."""
        action = batch["action"].float()
        noisy = flow.interpolate(action, noise_bta, time_b[:, None])
        prefix = self.read_prefix(self.prefix_tokens(batch))
        predicted = self.velocity(noisy, time_b, prefix, batch)
        return (predicted - flow.velocity_target(action, noise_bta)).square()

    def mean_errors(self, errors_bta: Tensor, is_pad_bt: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss and its value per sample [b], over real dimensions and steps only."""
        errors = errors_bta[..., : self.config.action_dim]
        if is_pad_bt is None:
            return errors.mean(), errors.mean(dim=(1, 2))
        real_bt1 = ~is_pad_bt[..., None]
        summed_b = (errors * real_bt1).sum(dim=(1, 2))
        counted_b = real_bt1.sum(dim=(1, 2)) * errors.shape[-1]
        total = summed_b.sum() / counted_b.sum().clamp_min(1)
        return total, summed_b / counted_b.clamp_min(1)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the velocity.

        Args:
            batch: See the class.
            generator: Source of times and noise; any device.
        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        """
        action = batch["action"]
        time = flow.sample_time((len(action),), generator=generator).to(action.device)
        noise = torch.randn(action.shape, generator=generator, device=generator.device)
        errors = self.errors(batch, noise.to(action.device), time)
        loss, _ = self.mean_errors(errors, batch.get("action_is_pad"))
        per_dim = errors.detach()[..., : self.config.action_dim].mean(dim=(0, 1))
        return {"loss": loss, "loss_per_dim": per_dim}

    def forward(
        self, batch: Batch, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Denoise to normalised actions, float32 [b, t, a], with the configured Euler steps.

        Args:
            continued: What the actions have to agree with.
        """
        prefix = self.read_prefix(self.prefix_tokens(batch))
        if continued is None and folds_steps(self.action_out, noise_bta):
            actions = self._folded_flow(prefix, batch, noise_bta.float())
        else:
            field = self.velocity_field(prefix, batch)
            followed = field if continued is None else continued.conditioned(field)
            actions = flow.integrate(followed, noise_bta.float(), steps=self.config.flow_steps)
        return actions[..., : self.config.action_dim]

    def _folded_flow(self, prefix: Prefix, batch: Batch, x_bta: Tensor) -> Tensor:
        """The same flow with all that depends on its times made first, each step in one kernel."""
        steps, chunk = self.config.flow_steps, x_bta.shape[1]
        features = self.folded_times(step_times(steps, device=x_bta.device))
        for step in range(steps):
            suffix = self.suffix_at(x_bta, features.at(step), batch)
            hidden = self.read_suffix(suffix, prefix)[:, -chunk:]
            x_bta = step_by(self.action_out, x_bta, hidden, steps=steps)
        return x_bta

    def velocity_field(self, prefix: Prefix, batch: Batch) -> Velocity:
        """The velocity as a function of point and time alone, for integration."""

        def field(x_bta: Tensor, time: float | Tensor) -> Tensor:
            # The reference hands the time over in float32, and the shortest period shows that.
            times = torch.as_tensor(time, dtype=torch.float32, device=x_bta.device)
            return self.velocity(x_bta, times.expand(len(x_bta)), prefix, batch)

        return field
