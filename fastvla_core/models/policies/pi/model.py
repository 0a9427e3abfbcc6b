"""The networks of pi0 and pi0.5.

Shapes: b batch, c cameras, n tokens of one image, l language tokens, p prefix tokens, t action
steps, a action dimensions (padded), s suffix tokens, d expert width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.mlp import gelu_tanh
from fastvla_core.layers.norm import AdaptiveRMSNorm
from fastvla_core.layers.time_embedding import time_embedding
from fastvla_core.layers.transformer import AdaptiveTransformerLayer
from fastvla_core.models.backbones.decoder import (
    GEMMA,
    Decoder,
    DecoderSize,
    decoder_layers,
    rotation,
)
from fastvla_core.models.backbones.paligemma import PaliGemma
from fastvla_core.models.backbones.siglip import Siglip
from fastvla_core.models.heads.flow_expert import Batch, FlowExpertModel
from fastvla_core.models.heads.flow_parts import (
    ExpertSteering,
    Placement,
    Prefix,
    PrefixTokens,
    Suffix,
    TimeFeatures,
)
from fastvla_core.models.policies.pi.config import PiConfig
from fastvla_core.models.vision_tokens.layout import PrefixLayout


def _placement(blocks_s: Tensor, prefix: Prefix, size: DecoderSize) -> Placement:
    rope = rotation(prefix.behind(len(blocks_s)), size)
    return Placement(rope, prefix.seen_with(blocks_s))


class GemmaExpert(nn.Module):
    """A Gemma without words, each layer attending to the prefix's layer and to itself."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.size = size
        self.layers = decoder_layers(size, GEMMA)
        self.final_norm = GEMMA.norm_of(size)(size.width)

    def forward(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """[b, s, d] behind the final norm."""
        x, at = suffix.x_bsd, suffix.placement
        at = at or _placement(suffix.blocks_s, prefix, self.size)
        for layer, memory in zip(self.layers, prefix.layers, strict=True):
            x, _ = layer(x, at.rope, at.allowed, memory)
        return self.final_norm(x)


class AdaptiveGemmaExpert(nn.Module):
    """The same with norms and gates that follow the flow time."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.ModuleList(
            AdaptiveTransformerLayer(
                size.width,
                size.attention,
                mlp_width=size.mlp_width,
                eps=size.eps,
                activation=gelu_tanh,
            )
            for _ in range(size.depth)
        )
        self.final_norm = AdaptiveRMSNorm(size.width, eps=size.eps)

    def forward(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """[b, s, d] behind the final norm."""
        assert suffix.condition_bd is not None
        x, at = suffix.x_bsd, suffix.placement
        at = at or _placement(suffix.blocks_s, prefix, self.size)
        steering = suffix.steering or self.steering(suffix.condition_bd)
        for layer, memory, own in zip(self.layers, prefix.layers, steering.layers, strict=True):
            x = layer(x, at.rope, at.allowed, memory, own)
        return self.final_norm(x, steering.final)

    def steering(self, condition_bd: Tensor) -> ExpertSteering:
        """What the condition asks of all norms."""
        layers: Any = self.layers
        return ExpertSteering(
            tuple(layer.steering(condition_bd) for layer in layers),
            self.final_norm.steering(condition_bd),
        )


class PiModel(FlowExpertModel):
    """PaliGemma over images and instruction; subclasses bring the expert and its inputs."""

    # Small and sensitive, or not read often enough to gain by fewer bits.
    full_precision: ClassVar[tuple[str, ...]] = (
        "state_in",
        "action_in",
        "action_out",
        "time_in",
        "time_out",
        "paligemma.projector",
    )
    # What tells tokens where to look: see `skipped_layers`.
    nf4_full_precision: ClassVar[tuple[str, ...]] = (
        "paligemma.text.layers.*.self_attn.[qkv]_proj",
        "expert.layers.*.self_attn.[qkv]_proj",
    )
    token_table: ClassVar[str] = "paligemma.text.embed_tokens"
    expert: nn.Module

    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        width = config.expert.width
        self.config = config
        self.paligemma = PaliGemma(config.paligemma)
        self.action_in = nn.Linear(config.max_action_dim, width)
        self.action_out = nn.Linear(width, config.max_action_dim)

    @property
    def vision_tower(self) -> Siglip:
        """PaliGemma's vision tower."""
        return self.paligemma.vision

    @property
    def language_model(self) -> Decoder:
        """PaliGemma's language model."""
        return self.paligemma.text

    def compile_parts(self) -> None:
        """Compile vision tower, language model and expert, each by itself."""
        for part in (self.paligemma.vision, self.paligemma.text, self.expert):
            part.compile(dynamic=False)

    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w]."""
        return self.paligemma.image_tokens(images_bc3hw)

    def token_grid(self, images_bc3hw: Tensor) -> tuple[int, int]:
        """Rows and columns of the tokens of one image."""
        patch = self.config.paligemma.vision.patch
        return images_bc3hw.shape[-2] // patch, images_bc3hw.shape[-1] // patch

    def prefix_tokens(self, batch: Batch, images_bcnw: Tensor | None = None) -> PrefixTokens:
        """[image tokens of each camera, language tokens], one block."""
        if images_bcnw is None:
            images_bcnw = self.image_tokens(batch["images"])
        language = batch.get("words")
        if language is None:
            language = self.paligemma.text.embed(batch["tokens"])
        x = torch.cat([images_bcnw.flatten(1, 2).to(language.dtype), language], dim=1)
        mask_bcn = batch["image_mask"][:, :, None].expand(*images_bcnw.shape[:3])
        mask = torch.cat([mask_bcn.flatten(1, 2), batch["token_mask"]], dim=1)
        rows, columns = self.token_grid(batch["images"])
        layout = PrefixLayout(
            cameras=images_bcnw.shape[1],
            rows=rows,
            columns=columns,
            words=language.shape[1],
        )
        blocks = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
        return PrefixTokens(x, mask, blocks, layout)

    def read_prefix(self, tokens: PrefixTokens) -> Prefix:
        """Keys and values of the language model's layers."""
        layers = self.paligemma.text.memory(tokens.x_bpw, tokens.positions_bp, tokens.allowed)
        return Prefix(layers, tokens.mask_bp, tokens.kept)

    def placement(self, blocks_s: Tensor, prefix: Prefix) -> Placement:
        """The same for all of the expert's layers."""
        return _placement(blocks_s, prefix, self.config.expert)

    def read_suffix(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """Run the expert; [b, s, d]."""
        return self.expert(suffix, prefix)

    def velocity_of(self, output_btd: Tensor) -> Tensor:
        """Velocities [b, t, a], float32."""
        return self.action_out(output_btd.to(self.action_out.weight.dtype)).float()

    def embedded_time(self, time_b: Tensor) -> Tensor:
        """The sinusoid of the flow time, [b, d]."""
        periods = {"min_period": self.config.min_period, "max_period": self.config.max_period}
        embedded = time_embedding(time_b, width=self.config.expert.width, **periods)
        return embedded.to(self.action_in.weight.dtype)


class Pi0(PiModel):
    """pi0: the state is a token of its own, the flow time is joined with each action.

    Source: arXiv:2410.24164.
    """

    def __init__(self, config: PiConfig) -> None:
        super().__init__(config)
        width = config.expert.width
        self.expert = GemmaExpert(config.expert)
        self.state_in = nn.Linear(config.max_state_dim, width)
        self.time_in = nn.Linear(2 * width, width)
        self.time_out = nn.Linear(width, width)

    def time_features(self, time_b: Tensor) -> TimeFeatures:
        """The sinusoid."""
        return TimeFeatures(self.embedded_time(time_b))

    def suffix_at(self, noisy_bta: Tensor, features: TimeFeatures, batch: Batch) -> Suffix:
        """[state, actions]: the state is blind to the actions, which see each other."""
        dtype = self.action_in.weight.dtype
        state = self.state_in(batch["state"].to(dtype))[:, None]
        action = self.action_in(noisy_bta.to(dtype))
        time = features.embedded_bd[:, None].expand_as(action)
        joined = self.time_in(torch.cat([action, time], dim=-1))
        x = torch.cat([state, self.time_out(functional.silu(joined))], dim=1)
        return Suffix(x, self.suffix_blocks(x.device))

    def suffix_blocks(self, device: torch.device) -> Tensor:
        """The state, then the actions."""
        return torch.arange(1 + self.config.chunk_size, device=device).clamp_max(1)


class Pi05(PiModel):
    """pi0.5: the state is in the prompt, the flow time steers the expert's norms.

    Source: arXiv:2504.16054.
    """

    expert: AdaptiveGemmaExpert

    def __init__(self, config: PiConfig) -> None:
        super().__init__(config)
        width = config.expert.width
        self.expert = AdaptiveGemmaExpert(config.expert)
        self.time_in = nn.Linear(width, width)
        self.time_out = nn.Linear(width, width)

    def time_features(self, time_b: Tensor) -> TimeFeatures:
        """The condition."""
        hidden = functional.silu(self.time_in(self.embedded_time(time_b)))
        return TimeFeatures(functional.silu(self.time_out(hidden)))

    def folded_times(self, time_s: Tensor) -> TimeFeatures:
        """The conditions, and what the norms make of them: each weight is read once."""
        condition = self.time_features(time_s).embedded_bd
        return TimeFeatures(condition, self.expert.steering(condition))

    def suffix_at(self, noisy_bta: Tensor, features: TimeFeatures, batch: Batch) -> Suffix:
        """The actions, one block, and the condition."""
        x = self.action_in(noisy_bta.to(self.action_in.weight.dtype))
        return Suffix(x, self.suffix_blocks(x.device), features.embedded_bd, features.steering)

    def suffix_blocks(self, device: torch.device) -> Tensor:
        """The actions alone."""
        return torch.zeros(self.config.chunk_size, dtype=torch.long, device=device)
