"""What is read once per observation: images, instruction and state to keys and values.

Shapes: b batch, c cameras, l language tokens, p prefix tokens; q prefix tokens that were kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import KeyValue
from fastvla_core.layers.rope import rope_table
from fastvla_core.layers.transformer import KeyValueLayer, TransformerLayer
from fastvla_core.models.backbones.image_points import Pointer
from fastvla_core.models.backbones.text import AttentionPool, TextEncoder
from fastvla_core.models.backbones.vision import VisionTower
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import ALL_TOKENS, VisionTokens
from fastvla_core.models.vision_tokens.pruning import NO_HINTS, Hints, pruned
from fastvla_core.models.vision_tokens.scores import TokenScorer

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

    def detached(self) -> Prefix:
        """The same, through which no gradient flows."""
        layers = tuple(layer.detached() for layer in self.layers)
        return dataclasses.replace(self, layers=layers)


class PrefixEncoder(nn.Module):
    """Images, instruction and state to one sequence, and that to keys and values per layer.

    The sequence is [image tokens of each camera, language tokens, state token]; all real tokens
    see each other. A token's position is its slot, so a missing camera moves nothing. With
    `image_points` the state token also holds what a `Pointer` makes of the images.
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
        self.pointer: Pointer | None = None
        if config.image_points:
            if not condition_width:
                raise CheckpointError(
                    "config.json: image_points: this vision stem is not steered by words",
                    mend="take the stem film_conv, or set it to 0",
                )
            self.pointer = Pointer(
                size.width,
                self.vision.token_grid,
                cameras=len(config.cameras),
                points=config.image_points,
                said=condition_width,
                state=len(config.state_names),
            )
            self.pointer_in = nn.Linear(self.pointer.out_width, size.width)
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
        state = self.state_in(batch["state"].to(self.state_in.weight.dtype))
        if self.pointer is not None:
            there = batch["image_mask"]
            pointed = self.pointer(images, there, condition, batch["state"])
            state = state + self.pointer_in(pointed)
        image_mask = batch["image_mask"].repeat_interleave(self.vision.tokens_per_camera, dim=1)
        mask_bp = torch.cat([image_mask, language_mask, image_mask.new_ones(len(state), 1)], dim=1)
        return torch.cat([images, language, state[:, None]], dim=1), mask_bp

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
