"""One learned query per action step that reads the backbone, and a residual MLP behind it.

What regression and bins have in common. Shapes: b batch, t action steps, d width, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.residual import add_norm_relu, norm_relu
from fastvla_core.models.heads.interface import ActionSizes, BackboneOffer, Context
from fastvla_core.models.heads.reader import ActionReader, ReaderOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions(ReaderOptions):
    """Options of the heads that infer a whole chunk in one pass.

    Attributes:
        blocks: Residual blocks of the MLP.
    """

    depth: int = 2
    blocks: int = 2

    def __post_init__(self) -> None:
        # `super()` without arguments does not find the class that slots made anew.
        ReaderOptions.__post_init__(self)
        if self.blocks < 0:
            raise CheckpointError(
                f"an action head of {self.blocks} blocks", mend="give 0 or more of them"
            )


class ResidualMLP(nn.Module):
    """A linear layer, then blocks x + relu(linear(norm(x))), then norm and linear.

    Source: OpenVLA-OFT, arXiv:2502.19645.
    """

    def __init__(self, width: int, *, blocks: int, out: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(width)
        self.input = nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.output_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to [..., o]."""
        x = norm_relu(x, self.input_norm, self.input)
        norms: Any = self.norms
        for norm, block in zip(norms, self.blocks):
            x = add_norm_relu(x, norm, block)
        return self.output(self.output_norm(x))


class ChunkQueries(nn.Module):
    """Learned queries, which see each other and the state, through a reader and an MLP.

    Source: OpenVLA-OFT, arXiv:2502.19645 (parallel decoding of a chunk).
    """

    def __init__(
        self, options: QueryOptions, *, offer: BackboneOffer, sizes: ActionSizes, out: int
    ) -> None:
        super().__init__()
        self.reader = ActionReader(options, offer=offer, state=sizes.state)
        self.queries = nn.Embedding(sizes.steps, options.width)
        self.mlp = ResidualMLP(options.width, blocks=options.blocks, out=out)

    def forward(self, context: Context) -> Tensor:
        """One output per step, float32 [b, t, o]."""
        state = self.reader.state_token(context)
        queries = self.queries.weight.to(state.dtype).expand(len(state), -1, -1)
        x = torch.cat([state, queries], dim=1)
        positions = torch.arange(x.shape[1], device=x.device)
        everyone = torch.ones(1, 1, 1, x.shape[1], dtype=torch.bool, device=x.device)
        own = everyone.expand(-1, -1, x.shape[1], -1)
        x, _ = self.reader(x, self.reader.read(context), positions_n=positions, own=own)
        return self.mlp(x[:, 1:]).float()
