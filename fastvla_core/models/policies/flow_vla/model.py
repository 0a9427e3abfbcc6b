"""The network: a prefix that is read once, and an expert that turns noise into actions beside it.

Shapes: b batch, c cameras, l language tokens, p prefix tokens, s flow samples, t action steps,
a action dimensions, d expert width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.flow_steps import step_by
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.rope import RopeTable, rope_table
from fastvla_core.layers.time_embedding import time_embedding
from fastvla_core.layers.transformer import TransformerLayer
from fastvla_core.models.flow_prefix import FlowPrefix, draw_delays, frozen_rows
from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.policies.flow_vla.flow import FlowSamples
from fastvla_core.models.policies.flow_vla.prefix import Batch, Prefix, PrefixEncoder
from fastvla_core.models.vision_tokens.layout import PrefixLayout
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import Pruning, VisionTokens
from fastvla_core.models.vision_tokens.pruning import NO_HINTS, Hints
from fastvla_core.models.vision_tokens.watch import AttentionWatch, watching_last


@dataclass(frozen=True, slots=True)
class Placement:
    """Rotation of the actions, and whom they see, [b, 1, s * t, p + s * t]."""

    rope: RopeTable
    allowed: Tensor


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the steps of a flow share."""

    prefix: Prefix
    placement: Placement


class ActionExpert(nn.Module):
    """Noisy actions and their time to velocities, reading the prefix in every layer.

    Several flow samples of one observation share its prefix: they stand side by side in one
    sequence, at the same positions, and do not see each other.
    """

    def __init__(self, config: FlowVLAConfig) -> None:
        super().__init__()
        size, actions = config.expert, len(config.action_names)
        self.config = config
        self.action_in = nn.Linear(actions, size.width)
        self.time_in = nn.Linear(2 * size.width, size.width)
        self.time_out = nn.Linear(size.width, size.width)
        self.layers = nn.ModuleList(
            TransformerLayer(size.width, config.attention, mlp_width=size.mlp_width)
            for _ in range(size.depth)
        )
        self.final_norm = RMSNorm(size.width)
        self.action_out = nn.Linear(size.width, actions)

    def embedded_time(self, time: Tensor) -> Tensor:
        """The sinusoid of flow times of any shape, [..., d]."""
        return time_embedding(
            time,
            width=self.action_in.out_features,
            min_period=self.config.min_period,
            max_period=self.config.max_period,
        ).to(self.action_in.weight.dtype)

    def embed(self, noisy_bsta: Tensor, time_bst: Tensor) -> Tensor:
        """Actions joined with their time, [b, s * t, d]."""
        return self.joined(noisy_bsta, self.embedded_time(time_bst))

    def joined(self, noisy_bsta: Tensor, embedded_bstd: Tensor) -> Tensor:
        """The same for times that `embedded_time` embedded."""
        action = self.action_in(noisy_bsta.to(self.action_in.weight.dtype))
        joined = torch.cat([action, embedded_bstd.expand_as(action)], dim=-1)
        return self.time_out(functional.silu(self.time_in(joined))).flatten(1, 2)

    def allowed(self, prefix: Prefix, *, samples: int) -> Tensor:
        """Who sees whom, [b, 1, s * t, p + s * t]: the real prefix, and one's own sample."""
        owner = torch.arange(samples, device=prefix.mask_bp.device)
        owner = owner.repeat_interleave(self.config.chunk_size)
        same = (owner[:, None] == owner).expand(len(prefix.mask_bp), 1, -1, -1)
        seen = prefix.mask_bp[:, None, None, :].expand(-1, 1, len(owner), -1)
        return torch.cat([seen, same], dim=-1)

    def forward(self, noisy_bsta: Tensor, time_bst: Tensor, prefix: Prefix) -> Tensor:
        """Velocities [b, s, t, a], in float32; times per sample (t = 1) or per action step."""
        x = self.embed(noisy_bsta, time_bst)
        placement = self.placement(prefix, samples=noisy_bsta.shape[1])
        return self.action_out(self.read(x, prefix, placement)).float().view(noisy_bsta.shape)

    def placement(self, prefix: Prefix, *, samples: int = 1) -> Placement:
        """Where the actions stand behind the prefix, and whom they see: the same in each step."""
        steps = torch.arange(self.config.chunk_size, device=prefix.mask_bp.device).repeat(samples)
        rope = rope_table(steps + prefix.length, head_dim=self.config.attention.head_dim)
        return Placement(rope, self.allowed(prefix, samples=samples))

    def read(self, x_bsd: Tensor, prefix: Prefix, placement: Placement) -> Tensor:
        """Embedded actions to [b, s, d] behind the final norm."""
        for layer, memory in zip(self.layers, prefix.layers, strict=True):
            x_bsd, _ = layer(x_bsd, placement.rope, placement.allowed, memory)
        return self.final_norm(x_bsd)


class FlowVLA(nn.Module):
    """A vision-language prefix and a flow-matching action expert with joint attention.

    A batch holds
        images: float [b, c, 3, height, width] in [-1, 1], RGB, cameras in the config's order.
        image_mask: bool [b, c], False where a camera is missing; its pixels are then ignored.
        tokens, token_mask: int64 and bool [b, l], at least one real token per row.
        state: float32 [b, S], normalised.
        action: float32 [b, t, a], normalised (relative) targets; for `loss` only.
    Source: pi0, arXiv:2410.24164; SmolVLA, arXiv:2506.01844.
    """

    # A token's position is its slot, so more padding would move what stands behind the words.
    pads_prompts: ClassVar[bool] = False
    # Small and sensitive, or not read often enough to gain by fewer bits.
    full_precision: ClassVar[tuple[str, ...]] = (
        "prefix.state_in",
        "prefix.pool.*",
        "prefix.pointer.*",
        "prefix.pointer_in",
        "prefix.token_scorer.*",
        "prefix.vision.projector",
        "*.film",
        "expert.action_in",
        "expert.action_out",
        "expert.time_in",
        "expert.time_out",
    )
    # What tells tokens where to look: see `skipped_layers`.
    nf4_full_precision: ClassVar[tuple[str, ...]] = (
        "prefix.layers.*.self_attn.[qkv]_proj",
        "prefix.last_layer.self_attn.[qkv]_proj",
        "expert.layers.*.self_attn.[qkv]_proj",
    )

    def __init__(self, config: FlowVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tokens = config.vision_tokens
        self.prefix = PrefixEncoder(config)
        self.expert = ActionExpert(config)

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """How its visual tokens can be pruned."""
        learned: tuple[Pruning, ...] = ("learned",) if self.prefix.token_scorer else ()
        return ("adaptive", "uniform", "pool", *learned)

    def compile_parts(self) -> None:
        """Compile prefix and expert, each by itself: a flow step is then compiled only once."""
        self.prefix.compile(dynamic=False)
        self.expert.compile(dynamic=False)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the velocity.

        With `max_prefix_steps` the first action steps of a sample, as many as a delay drawn for it
        says, are given as they are (time 0), and count nothing.

        Args:
            batch: See the class.
            generator: Source of times, noise and delays; any device.
        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        Source of the delays: arXiv:2512.05964.
        """
        samples = self.flow_samples(batch, generator=generator)
        return self.flow_loss(samples, self.predicted(samples, self.prefix(batch), batch), batch)

    def flow_samples(self, batch: Batch, *, generator: torch.Generator) -> FlowSamples:
        """Points to learn from; see `loss`."""
        action = batch["action"].float()[:, None]
        shape = (len(action), self.config.flow_samples_per_prefix)
        time = flow.sample_time(shape, generator=generator).to(action.device)[..., None]
        noise = torch.randn(
            (*shape, *action.shape[2:]), generator=generator, device=generator.device
        ).to(action.device)
        weight = None
        if longest := self.config.max_prefix_steps:
            delay = draw_delays(len(action), longest=longest, generator=generator)
            given = frozen_rows(delay.to(action.device), rows=action.shape[2])[:, None]
            time = torch.where(given, 0.0, time)
            counted = ~given[..., None]
            weight = counted / counted.float().mean()
        noisy = flow.interpolate(action, noise, time)
        return FlowSamples(noisy, time, flow.velocity_target(action, noise), weight)

    def predicted(self, samples: FlowSamples, prefix: Prefix, batch: Batch) -> Tensor:
        """Velocities at the samples, [b, s, t, a]."""
        return self.expert(samples.noisy, samples.time, prefix)

    def flow_loss(
        self, samples: FlowSamples, predicted_bsta: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """How far predicted velocities are from the samples' targets; see `loss`."""
        error = (predicted_bsta - samples.target).square()
        if samples.weight is not None:
            error = error * samples.weight
        return {"loss": error.mean(), "loss_per_dim": error.detach().mean(dim=(0, 1, 2))}

    def read_observation(self, batch: Batch) -> Observed:
        """All that a flow needs of an observation."""
        prefix = self.prefix(batch)
        return Observed(prefix, self.expert.placement(prefix))

    def step_features(self) -> tuple[Tensor, ...]:
        """What depends on the flow times alone, [d] for each Euler step."""
        steps = self.config.num_inference_steps
        # In float64: see `time_embedding`.
        times = torch.tensor([1.0 - step / steps for step in range(steps)], dtype=torch.float64)
        return tuple(self.expert.embedded_time(times.to(self.expert.action_in.weight.device)))

    def flow_step(self, observed: Observed, batch: Batch, x_bta: Tensor, feature: Tensor) -> Tensor:
        """One Euler step, float32 [b, t, a], with everything made ahead.

        Args:
            observed: From `read_observation`.
            batch: Not read: the state is in the prefix.
            feature: Of the step, from `step_features`.
        """
        joined = self.expert.joined(x_bta[:, None], feature)
        output = self.expert.read(joined, observed.prefix, observed.placement)
        steps = self.config.num_inference_steps
        return step_by(self.expert.action_out, x_bta, output, steps=steps)

    def follow_flow(
        self, observed: Observed, batch: Batch, noise_bta: Tensor, features: Sequence[Tensor]
    ) -> Tensor:
        """From noise to normalised actions, float32 [b, t, a]; see `flow_step`."""
        x = noise_bta.float()
        for feature in features:
            x = self.flow_step(observed, batch, x, feature)
        return x

    @property
    def action_dim(self) -> int:
        """Action dimensions."""
        return len(self.config.action_names)

    def watch(self) -> AttentionWatch:
        """Listens to what the expert looks at in the prefix."""
        return AttentionWatch(self.expert.layers)

    def observed(
        self, batch: Batch, options: VisionTokens, *, hints: Hints = NO_HINTS
    ) -> tuple[PrefixLayout, Prefix]:
        """Read the observation as the options say."""
        return self.prefix.layout(batch), self.prefix.observed(batch, options, hints=hints)

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
        options, steps = self.vision_tokens, self.config.num_inference_steps
        # What is compiled is the prefix as it is without any option.
        prefix = (
            self.prefix.observed(batch, options, memory=memory)
            if options.active
            else self.prefix(batch)
        )

        def velocity(x_bta: Tensor, time: float | Tensor) -> Tensor:
            # In float64: see `time_embedding`.
            times = torch.as_tensor(time, dtype=torch.float64, device=x_bta.device)
            times_bst = times.expand(len(x_bta), -1 if times.ndim else 1)[:, None]
            return self.expert(x_bta[:, None], times_bst, prefix)[:, 0]

        field, watch = velocity, None
        if memory is not None and options.pruning == "adaptive":
            watch = self.watch()
            field = watching_last(field, watch, steps=steps)
        followed = field if continued is None else continued.conditioned(field)
        actions = flow.integrate(followed, noise_bta.float(), steps=steps)
        if watch is not None and memory is not None:
            memory.remember(
                batch["images"],
                watch.attention_bq,
                layout=self.prefix.layout(batch),
                kept=prefix.kept,
            )
        return actions
