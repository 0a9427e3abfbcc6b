"""What passes between the parts of a flow policy: the prefix, the suffix, and what is made ahead.

Shapes: b batch, p prefix tokens, s suffix tokens, w prefix width, d expert width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvla_core.layers.attention import BlockMask, KeyValue, block_mask
from fastvla_core.layers.norm import Steering
from fastvla_core.layers.rope import RopeTable
from fastvla_core.layers.transformer import LayerSteering
from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.models.vision_tokens.pruning import Hints, pruned


@dataclass(frozen=True, slots=True)
class PrefixTokens:
    """The embedded observation.

    Attributes:
        x_bpw: Embeddings.
        mask_bp: True where a token is real.
        blocks_p: Attention block of each token; see `block_mask`. Images and words share the first.
        layout: Where images and words are in the whole prefix; None where nothing can be left out.
        kept: Which tokens of the whole prefix these are; None for all.
    """

    x_bpw: Tensor
    mask_bp: Tensor
    blocks_p: Tensor
    layout: PrefixLayout | None = None
    kept: Kept | None = None

    @property
    def positions_bp(self) -> Tensor:
        """Integer positions in the whole prefix; what is masked repeats the one before it."""
        if self.kept is not None:
            return self.kept.of(self.kept.mask_bp.cumsum(dim=1) - 1)
        return self.mask_bp.cumsum(dim=1) - 1

    @property
    def allowed(self) -> BlockMask:
        """Who may look at whom, over [b, 1, p, p]."""
        return block_mask(self.blocks_p, self.blocks_p, self.mask_bp)

    def pruned(self, options: VisionTokens, hints: Hints) -> PrefixTokens:
        """Without the visual tokens that count least; see `vision_tokens.pruning.pruned`."""
        assert self.layout is not None
        x, kept = pruned(self.x_bpw, self.mask_bp, self.layout, options=options, hints=hints)
        # What stands behind images and words is kept whole, so the blocks are those of any sample.
        blocks = self.blocks_p[kept.index_bq[0]]
        return PrefixTokens(x, kept.of(self.mask_bp), blocks, self.layout, kept)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the expert reads of the observation: keys and values per layer, and which are real.

    Attributes:
        kept: Which tokens of the whole prefix these are; None for all.
        crossed: What the expert's cross-attention makes of the layers, one entry per expert layer,
            once that is known; None where it still has to, in every flow step.
    """

    layers: tuple[KeyValue, ...]
    mask_bp: Tensor
    kept: Kept | None = None
    crossed: tuple[KeyValue | None, ...] | None = None

    @property
    def length_b1(self) -> Tensor:
        """Real tokens of the whole prefix: the position of the first token behind them."""
        mask_bp = self.mask_bp if self.kept is None else self.kept.mask_bp
        return mask_bp.sum(dim=1, keepdim=True)

    def behind(self, tokens: int) -> Tensor:
        """Positions [b, tokens] of as many tokens behind the real ones."""
        return self.length_b1 + torch.arange(tokens, device=self.mask_bp.device)

    def seen_with(self, own: Tensor) -> BlockMask:
        """The mask of tokens whose own blocks [s] are given: the real prefix comes before them."""
        before = own.new_full((self.mask_bp.shape[1],), -1)
        mask = torch.cat([self.mask_bp, self.mask_bp.new_ones(len(self.mask_bp), len(own))], dim=1)
        return block_mask(own, torch.cat([before, own]), mask)

    def seen_by(self, tokens: int) -> BlockMask:
        """The mask of as many tokens that all look at the real prefix and at nothing else."""
        block = torch.zeros(1, dtype=torch.long, device=self.mask_bp.device)
        return block_mask(block.expand(tokens), block.expand(self.mask_bp.shape[1]), self.mask_bp)

    def detached(self) -> Prefix:
        """The same, through which no gradient flows."""
        layers = tuple(layer.detached() for layer in self.layers)
        return dataclasses.replace(self, layers=layers)


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
class Placement:
    """Where the suffix stands and whom it sees: the same in every step of a flow.

    Attributes:
        rope: Rotation of its tokens behind the prefix.
        allowed: Who may look at whom, over prefix and suffix.
        from_zero, seen: The same for layers that only read the prefix, where there are any.
    """

    rope: RopeTable
    allowed: BlockMask
    from_zero: RopeTable | None = None
    seen: BlockMask | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the steps of a flow share: what was read, and where the suffix stands behind it."""

    prefix: Prefix
    placement: Placement


@dataclass(frozen=True, slots=True)
class Suffix:
    """The expert's input at one flow time.

    Attributes:
        x_bsd: Embeddings, the noisy actions last.
        blocks_s: Attention block of each token among themselves.
        condition_bd: What steers adaptive norms; None where the norms are plain.
        steering: What the norms made of the condition ahead; None where they still have to.
        placement: Found in an earlier step of the flow; None where it still has to be.
    """

    x_bsd: Tensor
    blocks_s: Tensor
    condition_bd: Tensor | None = None
    steering: ExpertSteering | None = None
    placement: Placement | None = None

    def positions_bs(self, prefix: Prefix) -> Tensor:
        """Integer positions: right behind the real prefix tokens."""
        return prefix.behind(len(self.blocks_s))

    def allowed(self, prefix: Prefix) -> BlockMask:
        """Who may look at whom, over [b, 1, s, p + s]: the real prefix, and own blocks."""
        return prefix.seen_with(self.blocks_s)
