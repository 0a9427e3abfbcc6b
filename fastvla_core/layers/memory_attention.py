"""Attention of one sequence to another of any width, whose keys and values are made once.

Shapes: b batch, t query tokens, s memory tokens, d width, m memory width.
"""

from __future__ import annotations

from torch import Tensor

from fastvla_core.layers.attention import (
    AttentionShape,
    KeyValue,
    KeyValueProjection,
    Mask,
    attend,
)
from fastvla_core.layers.linear import linear


class MemoryAttention(KeyValueProjection):
    """Queries of a sequence over `key_value(memory, None)`; nothing is rotated.

    Args:
        width: Of the queries' sequence, d.
        memory_width: Of the sequence that is read, m.
        shape: Heads.
    """

    def __init__(self, width: int, *, memory_width: int, shape: AttentionShape) -> None:
        super().__init__(memory_width, shape)
        self.q_proj = linear(width, shape.heads * shape.head_dim)
        self.o_proj = linear(shape.heads * shape.head_dim, width)

    def forward(self, x_btd: Tensor, memory: KeyValue, allowed: Mask | None) -> Tensor:
        """[b, t, d] attends to the memory; see `attend` for `allowed`."""
        return self.o_proj(self.mixed(x_btd, memory, allowed))

    def mixed(self, x_btd: Tensor, memory: KeyValue, allowed: Mask | None) -> Tensor:
        """The heads side by side, [b, t, h * head_dim]: what `o_proj` takes back to the width."""
        query = self.q_proj(x_btd).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
        return attend(query, memory, allowed).transpose(1, 2).flatten(2)
