"""A whole chunk in one pass, by regression on the absolute error.

Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

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


class RegressionHead(ActionHead):
    """The median of what was demonstrated; fast, and blind to choices between two ways.

    Source: OpenVLA-OFT, arXiv:2502.19645.
    """

    options_type = QueryOptions
    full_precision: ClassVar[tuple[str, ...]] = ("chunk.reader.state_in", "chunk.mlp.output")

    def __init__(
        self,
        options: QueryOptions,
        *,
        offer: BackboneOffer,
        sizes: ActionSizes,
        action_tokenizer: object = None,
    ) -> None:
        super().__init__()
        self.chunk = ChunkQueries(options, offer=offer, sizes=sizes, out=sizes.action)

    @property
    def wanted(self) -> Wanted:
        """What the queries read."""
        return self.chunk.reader.wanted

    def compile_layers(self) -> None:
        """Compile the reader's layers."""
        self.chunk.reader.compile_layers()

    def loss(
        self, context: Context, batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean absolute error.

        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        """
        error = (self.chunk(context) - batch["action"].float()).abs()
        return {"loss": error.mean(), "loss_per_dim": error.detach().mean(dim=(0, 1))}

    def actions(
        self, context: Context, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Normalised actions, float32 [b, t, a]."""
        return self.chunk(context)
