"""The network: a prefix that is read once, and an expert that turns noise into actions beside it.

Shapes: b batch, c cameras, l language tokens, p prefix tokens, s flow samples, t action steps,
a action dimensions, d expert width.
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

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the expert needs to know of the observation.

    Attributes:
        layers: Keys and values per layer, [b, kv_heads, p, head_dim].
        mask_bp: True where a prefix token is real.
    """

    layers: tuple[KeyValue, ...]
    mask_bp: Tensor


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

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sequence [b, p, width] and its mask [b, p]."""
        language_mask = batch["token_mask"]
        language = self.text(batch["tokens"], language_mask)
        condition = None if self.pool is None else self.pool(language, language_mask)
        # Training hides cameras, and images that nobody sees need no time.
        present = batch["image_mask"] if self.training else None
        images = self.vision(batch["images"], condition, mask_bc=present)
        state = self.state_in(batch["state"].to(self.state_in.weight.dtype))[:, None]
        image_mask = batch["image_mask"].repeat_interleave(self.vision.tokens_per_camera, dim=1)
        mask_bp = torch.cat([image_mask, language_mask, image_mask.new_ones(len(state), 1)], dim=1)
        return torch.cat([images, language, state], dim=1), mask_bp

    def forward(self, batch: Batch) -> Prefix:
        """See `FlowVLA` for the batch."""
        x, mask_bp = self.embed(batch)
        rope = rope_table(torch.arange(x.shape[1], device=x.device), head_dim=self.head_dim)
        allowed = mask_bp[:, None, None, :]
        memory = []
        for layer in self.layers:
            x, own = layer(x, rope, allowed)
            memory.append(own)
        memory.append(self.last_layer(x, rope))
        return Prefix(tuple(memory), mask_bp)


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
        rope = rope_table(steps + prefix.mask_bp.shape[1], head_dim=self.config.attention.head_dim)
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
        "prefix.vision.projector",
        "*.film",
        "expert.action_in",
        "expert.action_out",
    )

    def __init__(self, config: FlowVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.prefix = PrefixEncoder(config)
        self.expert = ActionExpert(config)

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
        action = batch["action"].float()[:, None]
        shape = (len(action), self.config.flow_samples_per_prefix)
        time = flow.sample_time(shape, generator=generator).to(action.device)[..., None]
        noise = torch.randn(
            (*shape, *action.shape[2:]), generator=generator, device=generator.device
        ).to(action.device)
        counted = None
        if longest := self.config.max_prefix_steps:
            delay = draw_delays(len(action), longest=longest, generator=generator)
            given = frozen_rows(delay.to(action.device), rows=action.shape[2])[:, None]
            time = torch.where(given, 0.0, time)
            counted = ~given[..., None]
        noisy = flow.interpolate(action, noise, time)
        predicted = self.expert(noisy, time, self.prefix(batch))
        error = (predicted - flow.velocity_target(action, noise)).square()
        if counted is not None:
            error = error * (counted / counted.float().mean())
        return {"loss": error.mean(), "loss_per_dim": error.detach().mean(dim=(0, 1, 2))}

    def forward(
        self, batch: Batch, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Denoise to normalised actions, float32 [b, t, a], with the configured Euler steps.

        Args:
            continued: What the actions have to agree with.
        """
        prefix = self.prefix(batch)

        def velocity(x_bta: Tensor, time: float | Tensor) -> Tensor:
            # In float64: see `time_embedding`.
            times = torch.as_tensor(time, dtype=torch.float64, device=x_bta.device)
            times_bst = times.expand(len(x_bta), -1 if times.ndim else 1)[:, None]
            return self.expert(x_bta[:, None], times_bst, prefix)[:, 0]

        followed = velocity if continued is None else continued.conditioned(velocity)
        return flow.integrate(followed, noise_bta.float(), steps=self.config.num_inference_steps)
