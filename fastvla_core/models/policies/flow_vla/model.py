"""The network: a prefix that is read once, and an expert that turns noise into actions beside it.

Shapes: b batch, c cameras, l language tokens, p prefix tokens, s flow samples, t action steps,
a action dimensions, d expert width; q prefix tokens that were kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import KeyValue
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.rope import rope_table
from fastvla_core.layers.time_embedding import time_embedding
from fastvla_core.layers.transformer import KeyValueLayer, TransformerLayer
from fastvla_core.models.backbones.text import AttentionPool, TextEncoder
from fastvla_core.models.backbones.vision import VisionTower
from fastvla_core.models.flow_prefix import FlowPrefix, draw_delays, frozen_rows
from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.policies.flow_vla.flow import FlowSamples
from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import ALL_TOKENS, Pruning, VisionTokens
from fastvla_core.models.vision_tokens.pruning import NO_HINTS, Hints, pruned
from fastvla_core.models.vision_tokens.scores import TokenScorer
from fastvla_core.models.vision_tokens.watch import AttentionWatch, watching_last

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the expert needs to know of the observation.

    Attributes:
        layers: Keys and values per layer, [b, kv_heads, p, head_dim].
        mask_bp: True where a prefix token is real.
        kept: Which tokens of the whole prefix these are; None for all.
    """

    layers: tuple[KeyValue, ...]
    mask_bp: Tensor
    kept: Kept | None = None

    @property
    def length(self) -> int:
        """Tokens of the whole prefix: the position of the first token behind them."""
        return (self.mask_bp if self.kept is None else self.kept.mask_bp).shape[1]


class PrefixEncoder(nn.Module):
    """Images, instruction and state to one sequence, and that to keys and values per layer.

    The sequence is [image tokens of each camera, language tokens, state token]; all real tokens
    see each other. A token's position is its slot, so a missing camera moves nothing.
    """

    def __init__(self, config: FlowVLAConfig) -> None:
        super().__init__()
        size, height_width = config.prefix, config.image_resolution
        self.head_dim = config.attention.head_dim
        self.text = TextEncoder(
            vocab_size=config.vocab_size,
            max_length=config.tokenizer_max_length,
            width=size.width,
            depth=config.text.depth,
            mlp_width=config.text.mlp_width,
            shape=config.attention,
        )
        self.vision = VisionTower(
            config.vision,
            cameras=len(config.cameras),
            height=height_width[0],
            width=height_width[1],
            out_width=size.width,
        )
        condition_width = self.vision.condition_width
        self.pool = AttentionPool(size.width, condition_width) if condition_width else None
        self.state_in = nn.Linear(len(config.state_names), size.width)
        self.layers = nn.ModuleList(
            TransformerLayer(size.width, config.attention, mlp_width=size.mlp_width)
            for _ in range(size.depth - 1)
        )
        self.last_layer = KeyValueLayer(size.width, config.attention)
        learned = config.vision_tokens.pruning == "learned"
        self.token_scorer = TokenScorer(size.width) if learned else None

    def read_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Language tokens [b, l, width], and what conditions the vision."""
        language = self.text(batch["tokens"], batch["token_mask"])
        return language, None if self.pool is None else self.pool(language, batch["token_mask"])

    def embed(
        self,
        batch: Batch,
        *,
        memory: TokenMemory | None = None,
        options: VisionTokens = ALL_TOKENS,
    ) -> tuple[Tensor, Tensor]:
        """The sequence [b, p, width] and its mask [b, p].

        Args:
            memory, options: What was computed before, and what of it may be used.
        """
        language_mask = batch["token_mask"]
        if memory is not None and options.prefix_reuse:
            words = batch["tokens"], language_mask
            language, condition = memory.words(*words, read=lambda: self.read_words(batch))
        else:
            language, condition = self.read_words(batch)
        pixels = batch["images"]
        if memory is not None and options.camera_reuse is not None:
            images = memory.camera_tokens(
                pixels,
                lambda camera: self.vision.look(camera, pixels[:, camera], condition),
                threshold=options.camera_reuse,
                grid=self.vision.token_grid,
                condition=condition,
            ).flatten(1, 2)
        else:
            # Training hides cameras, and images that nobody sees need no time.
            present = batch["image_mask"] if self.training else None
            images = self.vision(pixels, condition, mask_bc=present)
        state = self.state_in(batch["state"].to(self.state_in.weight.dtype))[:, None]
        image_mask = batch["image_mask"].repeat_interleave(self.vision.tokens_per_camera, dim=1)
        mask_bp = torch.cat([image_mask, language_mask, image_mask.new_ones(len(state), 1)], dim=1)
        return torch.cat([images, language, state], dim=1), mask_bp

    def forward(self, batch: Batch) -> Prefix:
        """See `FlowVLA` for the batch."""
        return self.read(*self.embed(batch))

    def read(self, x: Tensor, mask: Tensor, kept: Kept | None = None) -> Prefix:
        """Keys and values of embedded tokens [b, q, width] with their mask [b, q].

        Args:
            kept: Which tokens of the whole prefix they are; None for all.
        """
        length = x.shape[1] if kept is None else kept.mask_bp.shape[1]
        rope = rope_table(torch.arange(length, device=x.device), head_dim=self.head_dim)
        if kept is not None:
            rope = rope.at(kept.index_bq)
        allowed = mask[:, None, None, :]
        memory = []
        for layer in self.layers:
            x, own = layer(x, rope, allowed)
            memory.append(own)
        memory.append(self.last_layer(x, rope))
        return Prefix(tuple(memory), mask, kept)

    def layout(self, batch: Batch) -> PrefixLayout:
        """Where images and words are in the whole prefix."""
        rows, columns = self.vision.token_grid
        words = batch["tokens"].shape[1]
        return PrefixLayout(
            cameras=batch["images"].shape[1], rows=rows, columns=columns, words=words
        )

    def observed(
        self,
        batch: Batch,
        options: VisionTokens,
        *,
        hints: Hints = NO_HINTS,
        memory: TokenMemory | None = None,
    ) -> Prefix:
        """The same as `forward`, with tokens left out and reused as the options say.

        Args:
            hints: Of what counts in the images, for adaptive pruning.
            memory: Of the goal, for a batch of one observation; it has hints of its own.
        """
        x, mask = self.embed(batch, memory=memory, options=options)
        layout, kept = self.layout(batch), None
        if memory is not None:
            hints = memory.hints(batch["images"], layout)
        first_look = memory is not None and memory.is_first_look(options)
        if options.pruning != "none" and not first_look:
            x, kept = pruned(
                x, mask, layout, options=options, hints=hints, scorer=self.token_scorer
            )
            mask = kept.of(mask)
        if memory is None or not options.prefix_reuse:
            return self.read(x, mask, kept)
        places = () if kept is None else (kept.index_bq,)
        return memory.prefix(x, mask, *places, read=lambda: self.read(x, mask, kept))


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

    def embed(self, noisy_bsta: Tensor, time_bst: Tensor) -> Tensor:
        """Actions joined with their time, [b, s * t, d]."""
        dtype = self.action_in.weight.dtype
        action = self.action_in(noisy_bsta.to(dtype))
        time = time_embedding(
            time_bst,
            width=action.shape[-1],
            min_period=self.config.min_period,
            max_period=self.config.max_period,
        ).to(action.dtype)
        joined = torch.cat([action, time.expand_as(action)], dim=-1)
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
        samples = noisy_bsta.shape[1]
        x = self.embed(noisy_bsta, time_bst)
        steps = torch.arange(self.config.chunk_size, device=x.device).repeat(samples)
        rope = rope_table(steps + prefix.length, head_dim=self.config.attention.head_dim)
        allowed = self.allowed(prefix, samples=samples)
        for layer, memory in zip(self.layers, prefix.layers, strict=True):
            x, _ = layer(x, rope, allowed, memory)
        return self.action_out(self.final_norm(x)).float().view(noisy_bsta.shape)


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

    # Small and sensitive, or not read often enough to gain by fewer bits.
    full_precision: ClassVar[tuple[str, ...]] = (
        "prefix.state_in",
        "prefix.pool.*",
        "prefix.token_scorer.*",
        "prefix.vision.projector",
        "*.film",
        "expert.action_in",
        "expert.action_out",
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
