"""A whole chunk in one pass, each action as one of a few hundred bins.

Shapes: b batch, t action steps, a action dimensions, n bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fastvla_core.errors import CheckpointError
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.models.heads.interface import (
    ActionHead,
    ActionSizes,
    BackboneOffer,
    Batch,
    Context,
    Wanted,
)
from fastvla_core.models.heads.queries import ChunkQueries, QueryOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class BinOptions(QueryOptions):
    """Options of `BinHead`.

    Attributes:
        bins: How many per dimension, of equal width.
        limit: They span -limit to limit, in standard deviations; what lies beyond is the last bin.
    """

    bins: int = 256
    limit: float = 3.0

    def __post_init__(self) -> None:
        # `super()` without arguments does not find the class that slots made anew.
        QueryOptions.__post_init__(self)
        if self.bins < 2 or self.limit <= 0:
            raise CheckpointError(
                f"{self.bins} bins up to {self.limit} standard deviations",
                mend="give 2 bins or more, and a `limit` above 0",
            )


def to_bins(actions: Tensor, *, bins: int, limit: float) -> Tensor:
    """The bin of each value, int64 from 0 to bins - 1."""
    share = (actions + limit) / (2 * limit)
    return (share * bins).floor().long().clamp_(0, bins - 1)


def from_bins(indices: Tensor, *, bins: int, limit: float) -> Tensor:
    """The centre of each bin, float32."""
    return ((indices.float() + 0.5) / bins * 2 - 1) * limit


class BinHead(ActionHead):
    """The likeliest bin of each action; unlike regression it can choose between two ways.

    Source: bins, RT-2, arXiv:2307.15818, and OpenVLA, arXiv:2406.09246; in one pass instead of one
    token after another, OpenVLA-OFT, arXiv:2502.19645.
    """

    options_type = BinOptions
    full_precision: ClassVar[tuple[str, ...]] = ("chunk.reader.state_in", "chunk.mlp.output")

    def __init__(
        self,
        options: BinOptions,
        *,
        offer: BackboneOffer,
        sizes: ActionSizes,
        action_tokenizer: object = None,
    ) -> None:
        super().__init__()
        self._options, self._action = options, sizes.action
        out = sizes.action * options.bins
        self.chunk = ChunkQueries(options, offer=offer, sizes=sizes, out=out)

    @property
    def wanted(self) -> Wanted:
        """What the queries read."""
        return self.chunk.reader.wanted

    def compile_layers(self) -> None:
        """Compile the reader's layers."""
        self.chunk.reader.compile_layers()

    def logits(self, context: Context) -> Tensor:
        """Of every bin, float32 [b, t, a, n]."""
        return self.chunk(context).unflatten(-1, (self._action, -1))

    def loss(
        self, context: Context, batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean cross-entropy.

        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        """
        options = self._options
        target = to_bins(batch["action"].float(), bins=options.bins, limit=options.limit)
        logits = self.logits(context).movedim(-1, 1)
        error = functional.cross_entropy(logits, target, reduction="none")
        return {"loss": error.mean(), "loss_per_dim": error.detach().mean(dim=(0, 1))}

    def actions(
        self, context: Context, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Centres of the likeliest bins, float32 [b, t, a]."""
        chosen = self.logits(context).argmax(dim=-1)
        return from_bins(chosen, bins=self._options.bins, limit=self._options.limit)
