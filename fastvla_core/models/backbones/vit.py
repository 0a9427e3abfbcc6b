"""The standard stem of larger policies: patches and a bidirectional transformer.

Shapes: b batch, n tokens, w width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import AttentionShape
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.transformer import TransformerLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTransformerOptions:
    """Options of the stem.

    Attributes:
        patch: Pixels along a patch's side; must divide the image.
        token_width, depth, heads, mlp_width: Of the transformer.
    """

    patch: int
    token_width: int
    depth: int
    heads: int
    mlp_width: int


class VisionTransformerStem(nn.Module):
    """Patch embedding, learned positions, transformer layers; takes no condition.

    Source: Dosovitskiy et al., arXiv:2010.11929.
    """

    condition_width = 0

    def __init__(self, options: Mapping[str, Any], *, height: int, width: int) -> None:
        super().__init__()
        own = VisionTransformerOptions(**options)
        if height % own.patch or width % own.patch:
            raise CheckpointError(
                f"vision: patches of {own.patch} do not divide an image of {height} x {width}",
                mend="change `vision.patch` or `image_resolution` in config.json",
            )
        self.token_width = own.token_width
        self.token_grid = (height // own.patch, width // own.patch)
        self.token_count = self.token_grid[0] * self.token_grid[1]
        self.patch_embedding = nn.Conv2d(3, own.token_width, own.patch, stride=own.patch)
        self.positions = nn.Parameter(torch.randn(self.token_count, own.token_width) * 0.02)
        shape = AttentionShape(
            heads=own.heads, kv_heads=own.heads, head_dim=own.token_width // own.heads
        )
        self.layers = nn.ModuleList(
            TransformerLayer(own.token_width, shape, mlp_width=own.mlp_width)
            for _ in range(own.depth)
        )
        self.final_norm = RMSNorm(own.token_width)

    def forward(self, images_b3hw: Tensor, condition: Tensor | None) -> Tensor:
        """Images in [-1, 1] to tokens [b, n, w]; the condition is not used."""
        # Sums keep the order in memory of what they start from, and every norm would copy it.
        x_bnw = self.patch_embedding(images_b3hw).flatten(2).mT.contiguous() + self.positions
        for layer in self.layers:
            x_bnw, _ = layer(x_bnw, None, None)
        return self.final_norm(x_bnw)
