"""SigLIP, the vision tower of PaliGemma and SmolVLM: patches, learned positions, a transformer.

Shapes: b batch, y and x patch rows and columns, n = y * x tokens, w width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fastvla_core.layers.attention import Attention, AttentionShape
from fastvla_core.layers.mlp import PlainMLP, gelu_tanh


@dataclass(frozen=True, slots=True, kw_only=True)
class SiglipSize:
    """Sizes of a SigLIP tower.

    Attributes:
        width, depth, heads, mlp_width: Of the transformer.
        patch: Pixels along a patch's side.
        grid: Patches along a side of the square image that the positions were learned for.
        eps: Of the layer norms.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int
    grid: int
    eps: float = 1e-6


class SiglipLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with layer norms and biases everywhere."""

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, size.width, eps=size.eps)
        head_dim = size.width // size.heads
        shape = AttentionShape(heads=size.heads, kv_heads=size.heads, head_dim=head_dim)
        self.input_norm = norm()
        self.self_attn = Attention(size.width, shape, bias=True)
        self.mlp_norm = norm()
        self.mlp = PlainMLP(size.width, size.mlp_width, activation=gelu_tanh)

    def forward(self, x_bnw: Tensor) -> Tensor:
        """[b, n, w] to the same."""
        mixed, _ = self.self_attn(self.input_norm(x_bnw), None, None)
        x_bnw = x_bnw + mixed
        return x_bnw + self.mlp(self.mlp_norm(x_bnw))


class Siglip(nn.Module):
    """Images to one token per patch.

    Source: Zhai et al., arXiv:2303.15343.
    """

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        self.size = size
        self.patch_embedding = nn.Conv2d(3, size.width, size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.empty(size.grid**2, size.width))
        nn.init.normal_(self.positions, std=0.02)
        self.layers = nn.ModuleList(SiglipLayer(size) for _ in range(size.depth))
        self.final_norm = nn.LayerNorm(size.width, eps=size.eps)

    def forward(self, images_b3hw: Tensor) -> Tensor:
        """Images in [-1, 1], a multiple of the patch in height and width, to tokens [b, n, w]."""
        x_bwyx = self.patch_embedding(images_b3hw.to(self.patch_embedding.weight.dtype))
        # Sums keep the order in memory of what they start from, and every norm would copy it.
        x_bnw = x_bwyx.flatten(2).mT.contiguous() + self._positions(*x_bwyx.shape[-2:])
        for layer in self.layers:
            x_bnw = layer(x_bnw)
        return self.final_norm(x_bnw)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Embeddings [n, w]; another grid than the learned one takes its nearest earlier cells."""
        grid = self.size.grid
        if rows == columns == grid:
            return self.positions
        device = self.positions.device
        y, x = (torch.arange(n, device=device) * grid // n for n in (rows, columns))
        return self.positions[(y[:, None] * grid + x).flatten()]


def pixel_shuffle(tokens_bnw: Tensor, *, factor: int) -> Tensor:
    """Gather squares of factor x factor tokens into one: [b, n, w] to [b, n / f^2, w * f^2].

    The tokens are of a square image whose side is a multiple of `factor`.
    Source: Idefics3, arXiv:2408.12637.
    """
    b, n, w = tokens_bnw.shape
    side = round(n**0.5)
    rows = side // factor
    grid = tokens_bnw.view(b, rows, factor, rows, factor, w)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(b, rows * rows, factor * factor * w)
