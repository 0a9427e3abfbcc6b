"""The network of SmolVLA.

Shapes: b batch, c cameras, n tokens of one image, l language tokens, p prefix tokens, t action
steps, a action dimensions (padded), w prefix width, d expert width.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import KeyValue
from fastvla_core.layers.linear import linear
from fastvla_core.layers.time_embedding import time_embedding
from fastvla_core.layers.transformer import CrossAttentionLayer, TransformerLayer
from fastvla_core.models.backbones.decoder import LLAMA, Decoder, rotation
from fastvla_core.models.backbones.siglip import Siglip, pixel_shuffle
from fastvla_core.models.heads.flow_expert import Batch, FlowExpertModel
from fastvla_core.models.heads.flow_parts import (
    Observed,
    Placement,
    Prefix,
    PrefixTokens,
    Suffix,
    TimeFeatures,
)
from fastvla_core.models.policies.smolvla.config import SmolVLAConfig
from fastvla_core.models.vision_tokens.layout import PrefixLayout


class SmolVLAExpert(nn.Module):
    """Layers that attend jointly with the prefix, and between them layers that only read it."""

    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        size, memory = config.expert, config.text.attention
        self.size = size
        self.reads = config.expert_reads
        self.layers = nn.ModuleList(
            TransformerLayer(
                size.width, size.attention, mlp_width=size.mlp_width, norm=LLAMA.norm_of(size)
            )
            if config.is_joint(read)
            else CrossAttentionLayer(
                size.width,
                memory=memory,
                shape=size.attention,
                mlp_width=size.mlp_width,
                norm=LLAMA.norm_of(size),
            )
            for read in self.reads
        )
        self.final_norm = LLAMA.norm_of(size)(size.width)

    def forward(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """[b, t, d] behind the final norm."""
        x, at = suffix.x_bsd, suffix.placement or self.placement(suffix.blocks_s, prefix)
        assert at.from_zero is not None
        assert at.seen is not None
        for index, (layer, read) in enumerate(zip(self.layers, self.reads)):
            memory = None if prefix.crossed is None else prefix.crossed[index]
            if not isinstance(layer, CrossAttentionLayer):
                x, _ = layer(x, at.rope, at.allowed, prefix.layers[read])
            elif memory is None:
                x = layer(x, at.from_zero, at.seen, prefix.layers[read])
            else:
                x = layer.read(x, at.from_zero, at.seen, memory)
        return self.final_norm(x)

    def placement(self, blocks_s: Tensor, prefix: Prefix) -> Placement:
        """Joint layers stand behind the prefix; those that only read it start at zero."""
        positions = prefix.behind(len(blocks_s))
        return Placement(
            rotation(positions, self.size),
            prefix.seen_with(blocks_s),
            rotation(positions - positions[:, :1], self.size),
            prefix.seen_by(len(blocks_s)),
        )

    def crossed(self, prefix: Prefix) -> tuple[KeyValue | None, ...]:
        """What each layer that only reads makes of its layer of the prefix, once for all steps."""
        return tuple(
            layer.self_attn.memory(prefix.layers[read])
            if isinstance(layer, CrossAttentionLayer)
            else None
            for layer, read in zip(self.layers, self.reads)
        )


class SmolVLA(FlowExpertModel):
    """SmolVLM's first layers over images, instruction and state; a flow-matching expert beside it.

    Source: SmolVLA, arXiv:2506.01844.
    """

    # Small and sensitive, or not read often enough to gain by fewer bits.
    full_precision: ClassVar[tuple[str, ...]] = (
        "state_in",
        "action_in",
        "action_out",
        "time_in",
        "time_out",
    )
    # What tells tokens where to look: see `skipped_layers`.
    nf4_full_precision: ClassVar[tuple[str, ...]] = (
        "text.layers.*.self_attn.[qkv]_proj",
        "expert.layers.*.self_attn.[qkv]_proj",
    )

    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        width, expert = config.text.width, config.expert.width
        self.config = config
        self.vision = Siglip(config.vision)
        self.connector = linear(config.vision.width * config.pixel_shuffle**2, width)
        self.text = Decoder(config.text, style=LLAMA, vocab_size=config.vocab_size)
        self.expert = SmolVLAExpert(config)
        self.state_in = nn.Linear(config.max_state_dim, width)
        self.action_in = nn.Linear(config.max_action_dim, expert)
        self.time_in = nn.Linear(2 * expert, expert)
        self.time_out = nn.Linear(expert, expert)
        self.action_out = nn.Linear(expert, config.max_action_dim)

    @property
    def vision_tower(self) -> Siglip:
        """The vision tower."""
        return self.vision

    @property
    def language_model(self) -> Decoder:
        """SmolVLM's layers."""
        return self.text

    def compile_parts(self) -> None:
        """Compile vision, language model and expert, each by itself."""
        for part in (self.vision, self.text, self.expert):
            part.compile(dynamic=False)

    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w], before scaling."""
        seen = self.vision(images_bc3hw.flatten(0, 1))
        tokens = self.connector(pixel_shuffle(seen, factor=self.config.pixel_shuffle))
        return tokens.unflatten(0, images_bc3hw.shape[:2])

    def token_grid(self, images_bc3hw: Tensor) -> tuple[int, int]:
        """Rows and columns of the tokens of one image."""
        side = self.config.vision.patch * self.config.pixel_shuffle
        return images_bc3hw.shape[-2] // side, images_bc3hw.shape[-1] // side

    def prefix_tokens(self, batch: Batch, images_bcnw: Tensor | None = None) -> PrefixTokens:
        """[image tokens of each camera, language tokens, state]; the state is its own block."""
        seen_bcnw = self.image_tokens(batch["images"]) if images_bcnw is None else images_bcnw
        images_bcnw = seen_bcnw * math.sqrt(self.config.text.width)
        mask_bcn = batch["image_mask"][:, :, None].expand(*images_bcnw.shape[:3])
        images, image_mask = self._with_markers(images_bcnw, mask_bcn)
        language, token_mask = self.text.embed(batch["tokens"]), batch["token_mask"]
        x = torch.cat([images, language], dim=1)
        mask = torch.cat([image_mask, token_mask], dim=1)
        blocks = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
        if "state" in batch:
            state = self.state_in(batch["state"].to(self.state_in.weight.dtype))[:, None]
            x = torch.cat([x, state.to(x.dtype)], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            blocks = functional.pad(blocks, (0, 1), value=1)
        missing = max(0, self.config.prefix_length - x.shape[1])
        return PrefixTokens(
            functional.pad(x, (0, 0, 0, missing)),
            functional.pad(mask, (0, missing)),
            functional.pad(blocks, (0, missing), value=1),
            self._layout(batch),
        )

    def _layout(self, batch: Batch) -> PrefixLayout:
        rows, columns = self.token_grid(batch["images"])
        start, end = self.config.image_markers or ((), ())
        return PrefixLayout(
            cameras=batch["images"].shape[1],
            rows=rows,
            columns=columns,
            words=batch["tokens"].shape[1],
            before=len(start),
            after=len(end),
        )

    def _with_markers(self, images_bcnw: Tensor, mask_bcn: Tensor) -> tuple[Tensor, Tensor]:
        """All image tokens in one sequence, each image between its marker tokens if it has any."""
        if not self.config.image_markers:
            return images_bcnw.flatten(1, 2), mask_bcn.flatten(1, 2)
        start, end = self.config.image_markers
        parts = [
            self._marker(start, mask_bcn),
            (images_bcnw, mask_bcn),
            self._marker(end, mask_bcn),
        ]
        tokens, masks = zip(*parts)
        return torch.cat(tokens, dim=2).flatten(1, 2), torch.cat(masks, dim=2).flatten(1, 2)

    def _marker(self, ids: tuple[int, ...], mask_bcn: Tensor) -> tuple[Tensor, Tensor]:
        # Unlike language, markers are not scaled; and they are there where the camera is not.
        # Not looked up by a tensor of ids: to put one on a GPU would break the capture of a graph.
        tokens = torch.stack([self.text.embed_tokens.weight[index] for index in ids])
        b, c = mask_bcn.shape[:2]
        return tokens.expand(b, c, -1, -1), mask_bcn.new_ones(b, c, len(ids))

    def read_prefix(self, tokens: PrefixTokens) -> Prefix:
        """Keys and values of SmolVLM's layers."""
        layers = self.text.memory(tokens.x_bpw, tokens.positions_bp, tokens.allowed)
        return Prefix(layers, tokens.mask_bp, tokens.kept)

    def placed(self, prefix: Prefix) -> Observed:
        """Cross-attention to the prefix, too, would be the same in each step."""
        crossed = dataclasses.replace(prefix, crossed=self.expert.crossed(prefix))
        return super().placed(crossed)

    def placement(self, blocks_s: Tensor, prefix: Prefix) -> Placement:
        """See `SmolVLAExpert.placement`."""
        return self.expert.placement(blocks_s, prefix)

    def time_features(self, time_b: Tensor) -> TimeFeatures:
        """The sinusoid."""
        embedded = time_embedding(
            time_b,
            width=self.config.expert.width,
            min_period=self.config.min_period,
            max_period=self.config.max_period,
        )
        return TimeFeatures(embedded.to(self.action_in.weight.dtype))

    def suffix_at(self, noisy_bta: Tensor, features: TimeFeatures, batch: Batch) -> Suffix:
        """Noisy actions joined with their time; each sees itself and those before it."""
        action = self.action_in(noisy_bta.to(self.action_in.weight.dtype))
        time = features.embedded_bd[:, None].expand_as(action)
        x = self.time_out(functional.silu(self.time_in(torch.cat([action, time], dim=-1))))
        return Suffix(x, self.suffix_blocks(x.device))

    def suffix_blocks(self, device: torch.device) -> Tensor:
        """Each action is a block."""
        return torch.arange(self.config.chunk_size, device=device)

    def read_suffix(self, suffix: Suffix, prefix: Prefix) -> Tensor:
        """Run the expert; [b, t, d]."""
        return self.expert(suffix, prefix)

    def velocity_of(self, output_btd: Tensor) -> Tensor:
        """Velocities [b, t, a], float32."""
        return self.action_out(output_btd.to(self.action_out.weight.dtype)).float()
