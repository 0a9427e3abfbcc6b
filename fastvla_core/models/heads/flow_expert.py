"""The part that pi0, pi0.5 and SmolVLA share: a prefix read once, a velocity that follows noise.

Shapes: b batch, c cameras, l language tokens, p prefix tokens, t action steps, a action dimensions
(padded), s suffix tokens, d expert width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import KeyValue, block_mask
from fastvla_core.layers.flow_steps import folds_steps, step_by, step_times
from fastvla_core.models.backbones.decoder import Decoder
from fastvla_core.models.flow_prefix import FlowPrefix, Velocity
from fastvla_core.models.heads.flow_parts import (
    Observed,
    Placement,
    Prefix,
    PrefixTokens,
    Suffix,
    TimeFeatures,
)
from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.flow_vla.flow import FlowSamples
from fastvla_core.models.vision_tokens.layout import PrefixLayout
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import ALL_TOKENS, Pruning, VisionTokens
from fastvla_core.models.vision_tokens.pruning import NO_HINTS, Hints
from fastvla_core.models.vision_tokens.watch import AttentionWatch, watching_last

Batch = Mapping[str, Tensor]


class FlowExpertModel(nn.Module, ABC):
    """A vision-language prefix and a flow-matching expert that reads its keys and values.

    A batch holds
        images: float [b, c, 3, height, width] in [-1, 1], RGB.
        image_mask: bool [b, c], False where a camera is missing.
        tokens, token_mask: int64 and bool [b, l], at least one real token per row.
        words: [b, l, w], the embedded tokens where they were looked up ahead (`with_words`).
        state: float32 [b, S], normalised and padded with zeros; not where only words are asked for.
        action: float32 [b, t, a], normalised and padded; for `loss` only.
        action_is_pad: bool [b, t], optional; what it marks does not count in `loss`.
    Source: pi0, arXiv:2410.24164.
    """

    config: Any
    pads_prompts: ClassVar[bool] = True
    vision_tokens: VisionTokens = ALL_TOKENS
    prunings: ClassVar[tuple[Pruning, ...]] = ("adaptive", "uniform", "pool")
    # Not a parameter: no policy acts by it, and training leaves it as it is.
    word_head: Tensor | None = None
    action_out: nn.Linear

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The vision tower."""

    @property
    @abstractmethod
    def language_model(self) -> Decoder:
        """The language model that reads the prefix."""

    def word_logits(self, hidden: Tensor) -> Tensor:
        """The language model's output to logits over its vocabulary, float32.

        The head is the token embedding, unless a checkpoint has one of its own.
        """
        own = self.word_head
        if own is None:
            return functional.linear(hidden, self.language_model.embed_tokens.weight).float()
        if own.device != hidden.device:
            self.word_head = own = own.to(hidden.device)
        return functional.linear(hidden, own.to(hidden.dtype)).float()

    @abstractmethod
    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w], before any scaling."""

    @abstractmethod
    def token_grid(self, images_bc3hw: Tensor) -> tuple[int, int]:
        """Rows and columns of the tokens of one image."""

    @abstractmethod
    def prefix_tokens(self, batch: Batch, images_bcnw: Tensor | None = None) -> PrefixTokens:
        """Embed the observation.

        Args:
            images_bcnw: From `image_tokens`, where they are known already.
        """

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
        samples = self.samples_at(batch, noise_bta, time_b)
        prefix = self.read_prefix(self.prefix_tokens(batch))
        return (self.predicted(samples, prefix, batch) - samples.target).square()

    def samples_at(self, batch: Batch, noise_bta: Tensor, time_b: Tensor) -> FlowSamples:
        """Points at the given times on the way from the batch's actions to the noise."""
        action = batch["action"].float()
        noisy = flow.interpolate(action, noise_bta, time_b[:, None])
        return FlowSamples(noisy, time_b, flow.velocity_target(action, noise_bta))

    def flow_samples(self, batch: Batch, *, generator: torch.Generator) -> FlowSamples:
        """Points to learn from; times and noise come from `generator`, of any device."""
        action = batch["action"]
        time = flow.sample_time((len(action),), generator=generator).to(action.device)
        noise = torch.randn(action.shape, generator=generator, device=generator.device)
        return self.samples_at(batch, noise.to(action.device), time)

    def predicted(self, samples: FlowSamples, prefix: Prefix, batch: Batch) -> Tensor:
        """Velocities at the samples, [b, t, a]."""
        return self.velocity(samples.noisy, samples.time, prefix, batch)

    def flow_loss(
        self, samples: FlowSamples, predicted_bta: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """How far predicted velocities are from the samples' targets; see `loss`."""
        errors = (predicted_bta - samples.target).square()
        loss, _ = self.mean_errors(errors, batch.get("action_is_pad"))
        per_dim = errors.detach()[..., : self.config.action_dim].mean(dim=(0, 1))
        return {"loss": loss, "loss_per_dim": per_dim}

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
        samples = self.flow_samples(batch, generator=generator)
        prefix = self.read_prefix(self.prefix_tokens(batch))
        return self.flow_loss(samples, self.predicted(samples, prefix, batch), batch)

    def forward(
        self,
        batch: Batch,
        noise_bta: Tensor,
        continued: FlowPrefix | None = None,
        *,
        memory: TokenMemory | None = None,
    ) -> Tensor:
        """Denoise to normalised actions, float32 [b, t, a], with the configured Euler steps.

        Args:
            continued: What the actions have to agree with.
            memory: Of the goal, for a batch of one observation; changed in place.
        """
        layout, prefix = self.observed(batch, self.vision_tokens, memory=memory)
        steps, watch = self.config.flow_steps, None
        if memory is not None and self.vision_tokens.pruning == "adaptive":
            watch = self.watch()
        if watch is None and continued is None and folds_steps(self.action_out, noise_bta):
            return self.follow_flow(self.placed(prefix), batch, noise_bta, self.step_features())
        field = self.velocity_field(prefix, batch)
        if watch is not None:
            field = watching_last(field, watch, steps=steps)
        followed = field if continued is None else continued.conditioned(field)
        actions = flow.integrate(followed, noise_bta.float(), steps=steps)
        if watch is not None and memory is not None and layout is not None:
            attention = watch.attention_bq
            memory.remember(batch["images"], attention, layout=layout, kept=prefix.kept)
        return actions[..., : self.config.action_dim]

    def read_observation(self, batch: Batch) -> Observed:
        """All that a flow needs of an observation."""
        return self.placed(self.read_prefix(self.prefix_tokens(batch)))

    def placed(self, prefix: Prefix) -> Observed:
        """The prefix, and where the suffix stands behind it."""
        blocks = self.suffix_blocks(prefix.mask_bp.device)
        return Observed(prefix, self.placement(blocks, prefix))

    def step_features(self) -> tuple[TimeFeatures, ...]:
        """What depends on the flow times alone, one entry per Euler step.

        It changes with the weights only: who keeps it has to make it anew after those.
        """
        steps = self.config.flow_steps
        features = self.folded_times(step_times(steps, device=self.action_out.weight.device))
        return tuple(features.at(step) for step in range(steps))

    def flow_step(
        self, observed: Observed, batch: Batch, x_bta: Tensor, feature: TimeFeatures
    ) -> Tensor:
        """One Euler step, float32 [b, t, a], with everything made ahead.

        Args:
            observed: From `read_observation`.
            batch: Only what is not in the prefix is read: the state, for pi0.
            feature: Of the step, from `step_features`.
        """
        suffix = replace(self.suffix_at(x_bta, feature, batch), placement=observed.placement)
        output = self.read_suffix(suffix, observed.prefix)[:, -x_bta.shape[1] :]
        return step_by(self.action_out, x_bta, output, steps=self.config.flow_steps)

    def follow_flow(
        self, observed: Observed, batch: Batch, noise_bta: Tensor, features: Sequence[TimeFeatures]
    ) -> Tensor:
        """From noise to normalised actions, float32 [b, t, a]; see `flow_step`."""
        x = noise_bta.float()
        for feature in features:
            x = self.flow_step(observed, batch, x, feature)
        return x[..., : self.action_dim]

    @property
    def action_dim(self) -> int:
        """Action dimensions that are not padding."""
        return self.config.action_dim

    @abstractmethod
    def suffix_blocks(self, device: torch.device) -> Tensor:
        """Attention block of each suffix token among themselves, [s]."""

    @abstractmethod
    def placement(self, blocks_s: Tensor, prefix: Prefix) -> Placement:
        """Where the suffix stands behind the prefix, and whom it sees."""

    def watch(self) -> AttentionWatch:
        """Listens to what the expert looks at in the prefix."""
        return AttentionWatch(cast("Any", self).expert.layers)

    def observed(
        self,
        batch: Batch,
        options: VisionTokens,
        *,
        hints: Hints = NO_HINTS,
        memory: TokenMemory | None = None,
    ) -> tuple[PrefixLayout | None, Prefix]:
        """Embed and read the observation as the options say; and where its images are in it.

        Args:
            hints: Of what counts in the images, for adaptive pruning.
            memory: Of the goal, for a batch of one observation; it has hints of its own.
        """
        images = self._remembered_images(batch, options, memory)
        tokens = self.prefix_tokens(batch) if images is None else self.prefix_tokens(batch, images)
        layout = tokens.layout
        if memory is not None and layout is not None:
            hints = memory.hints(batch["images"], layout)
        first_look = memory is not None and memory.is_first_look(options)
        if options.pruning != "none" and not first_look:
            tokens = tokens.pruned(options, hints)
        if memory is None or not options.prefix_reuse:
            return layout, self.read_prefix(tokens)
        return layout, self._remembered_prefix(tokens, memory)

    def _remembered_images(
        self, batch: Batch, options: VisionTokens, memory: TokenMemory | None
    ) -> Tensor | None:
        if memory is None or options.camera_reuse is None:
            return None
        images = batch["images"]
        return memory.camera_tokens(
            images,
            lambda camera: self.image_tokens(images[:, camera : camera + 1])[:, 0],
            threshold=options.camera_reuse,
            grid=self.token_grid(images),
        )

    def _remembered_prefix(self, tokens: PrefixTokens, memory: TokenMemory) -> Prefix:
        """Read the prefix; of one whose first block is known, only what is behind that.

        No token of the first block sees a later one, so its keys and values do not depend on them.
        """
        first = int((tokens.blocks_p == tokens.blocks_p[0]).sum())
        x, mask, positions = tokens.x_bpw, tokens.mask_bp, tokens.positions_bp
        whole: list[Prefix] = []

        def read() -> tuple[KeyValue, ...]:
            whole.append(self.read_prefix(tokens))
            return tuple(layer.first(first) for layer in whole[0].layers)

        inputs = (x[:, :first], mask[:, :first], positions[:, :first])
        known = memory.prefix(*inputs, read=read)
        if whole:
            return whole[0]
        if first < x.shape[1]:
            allowed = block_mask(tokens.blocks_p[first:], tokens.blocks_p, mask)
            known = self.language_model.memory(
                x[:, first:], positions[:, first:], allowed, past=known
            )
        return Prefix(known, mask, tokens.kept)

    def velocity_field(self, prefix: Prefix, batch: Batch) -> Velocity:
        """The velocity as a function of point and time alone, for integration."""

        def field(x_bta: Tensor, time: float | Tensor) -> Tensor:
            # The reference hands the time over in float32, and the shortest period shows that.
            times = torch.as_tensor(time, dtype=torch.float32, device=x_bta.device)
            return self.velocity(x_bta, times.expand(len(x_bta)), prefix, batch)

        return field
