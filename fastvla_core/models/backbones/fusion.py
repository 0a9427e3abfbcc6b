"""Words that look at images before the language model reads them: trained cross-attention.

The other fusion, the vision-language model's own, puts the image tokens among the words; there
the language model reads both, here it reads the words alone, which are far fewer.

Shapes: b batch, c cameras, n tokens per camera, p words, s image tokens, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import AttentionShape
from fastvla_core.layers.memory_attention import MemoryAttention
from fastvla_core.layers.mlp import GatedMLP
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.residual import add_gated

_HEAD_DIM = 64
# Closed at first, words would be what the language model was trained on, but nothing behind the
# gate would learn before it opens, and no image would be seen; a tenth changes words a little.
_FIRST_GATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFusionOptions:
    """Options of `CrossFusion`.

    Attributes:
        depth: Layers of cross-attention and feed-forward.
        heads: None for one per 64 of the width.
        mlp_ratio: Width of the feed-forward part, as a multiple of the words'.
    """

    depth: int = 2
    heads: int | None = None
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        if min(self.depth, self.mlp_ratio, 1 if self.heads is None else self.heads) < 1:
            raise CheckpointError(
                f"a fusion of depth {self.depth}, {self.heads} heads and mlp_ratio "
                f"{self.mlp_ratio}",
                mend="give numbers above 0",
            )


class GatedCrossLayer(nn.Module):
    """x + tanh(g) * attention(norm(x), images), then x + tanh(h) * mlp(norm(x))."""

    def __init__(self, width: int, shape: AttentionShape, *, mlp_width: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.image_norm = RMSNorm(width)
        self.cross_attn = MemoryAttention(width, memory_width=width, shape=shape)
        self.mlp_norm = RMSNorm(width)
        self.mlp = GatedMLP(width, mlp_width)
        self.attention_gate = nn.Parameter(torch.full((1,), _FIRST_GATE))
        self.mlp_gate = nn.Parameter(torch.full((1,), _FIRST_GATE))

    def forward(self, x_bpd: Tensor, images_bsd: Tensor, seen: Tensor) -> Tensor:
        """[b, p, d] to the same; see `attend` for `seen`."""
        memory = self.cross_attn.key_value(self.image_norm(images_bsd), None)
        mixed = self.cross_attn.mixed(self.input_norm(x_bpd), memory, seen)
        x = add_gated(x_bpd, mixed, self.cross_attn.o_proj, self.attention_gate)
        return x + self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))


class CrossFusion(nn.Module):
    """Words that took up what the cameras show.

    Args:
        width: Of words and image tokens.
        cameras: How many there are; each has an embedding of its own.
    Source: gated cross-attention, Flamingo, arXiv:2204.14198.
    """

    def __init__(self, options: CrossFusionOptions, *, width: int, cameras: int) -> None:
        super().__init__()
        heads = options.heads or max(1, width // _HEAD_DIM)
        if width % heads:
            raise CheckpointError(
                f"a fusion of {heads} heads does not divide the backbone's width of {width}",
                mend="give a number of heads that does",
            )
        shape = AttentionShape(heads=heads, kv_heads=heads, head_dim=width // heads)
        # What a word looks at that finds nothing: without it no camera would mean no number.
        self.blank = nn.Embedding(1, width)
        self.camera = nn.Embedding(cameras, width)
        nn.init.zeros_(self.camera.weight)
        self.layers = nn.ModuleList(
            GatedCrossLayer(width, shape, mlp_width=options.mlp_ratio * width)
            for _ in range(options.depth)
        )

    def forward(self, words_bpd: Tensor, tokens_bcnd: Tensor, mask_bc: Tensor) -> Tensor:
        """The words, [b, p, d], in their own type.

        Args:
            tokens_bcnd: Image tokens of each camera.
            mask_bc: False where a camera is missing.
        """
        dtype, rows = self.blank.weight.dtype, len(words_bpd)
        images = tokens_bcnd.to(dtype) + self.camera.weight[:, None]
        blank = self.blank.weight.expand(rows, 1, -1)
        images = torch.cat([images.flatten(1, 2), blank], dim=1)
        mask_bs = mask_bc.repeat_interleave(tokens_bcnd.shape[2], dim=1)
        mask_bs = torch.cat([mask_bs, mask_bs.new_ones(rows, 1)], dim=1)
        x = words_bpd.to(dtype)
        for layer in self.layers:
            x = layer(x, images, mask_bs[:, None, None])
        return x.to(words_bpd.dtype)
