"""Grouped-query attention that can also attend to keys and values computed before.

Shapes: b batch, h query heads, g key/value heads, t query tokens, s key tokens, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.linear import linear
from fastvla_core.layers.rope import RopeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Heads of an attention layer; joint attention needs the same shape on both sides.

    Attributes:
        heads: Query heads, a multiple of `kv_heads`.
        kv_heads: Key/value heads; each serves heads / kv_heads query heads.
        head_dim: Size of a head, even.
    """

    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """Keys (after rotation) and values of one layer, each [b, g, s, d]."""

    key_bgsd: Tensor
    value_bgsd: Tensor

    def then(self, other: KeyValue) -> KeyValue:
        """These, followed by the other's."""
        return KeyValue(
            torch.cat([self.key_bgsd, other.key_bgsd], dim=2),
            torch.cat([self.value_bgsd, other.value_bgsd], dim=2),
        )

    def first(self, count: int) -> KeyValue:
        """Those of the first tokens."""
        return KeyValue(self.key_bgsd[:, :, :count], self.value_bgsd[:, :, :count])


def attend(q_bhtd: Tensor, memory: KeyValue, allowed: Tensor | None = None) -> Tensor:
    """Softmax attention; returns [b, h, t, d].

    Args:
        allowed: Boolean, broadcastable to [b, 1, t, s]; True where a query may look. Each row
            needs at least one True.
    Source: Ainslie et al., arXiv:2305.13245 (grouped queries).
    """
    # The backward pass of the CPU's flash attention is about three times slower than plain
    # matrix products at the sizes of a policy (measured on two cores).
    if torch.is_grad_enabled() and q_bhtd.device.type == "cpu":
        return _attend_by_products(q_bhtd, memory, allowed)
    return functional.scaled_dot_product_attention(
        q_bhtd,
        memory.key_bgsd,
        memory.value_bgsd,
        attn_mask=allowed,
        enable_gqa=q_bhtd.shape[1] != memory.key_bgsd.shape[1],
    )


def _attend_by_products(q_bhtd: Tensor, memory: KeyValue, allowed: Tensor | None) -> Tensor:
    b, h, t, d = q_bhtd.shape
    groups = memory.key_bgsd.shape[1]
    q_bgrd = q_bhtd.reshape(b, groups, h // groups * t, d) * d**-0.5
    scores = (q_bgrd @ memory.key_bgsd.mT).view(b, h, t, -1)
    if allowed is not None:
        # Adding needs no pass over the scores in the backward direction; masked_fill does.
        hidden = torch.zeros_like(allowed, dtype=scores.dtype)
        scores = scores + hidden.masked_fill_(~allowed, float("-inf"))
    weights = scores.softmax(dim=-1).to(memory.value_bgsd.dtype)
    return (weights.view(b, groups, h // groups * t, -1) @ memory.value_bgsd).view(b, h, t, d)


class KeyValueProjection(nn.Module):
    """Keys and values of a sequence: all that the last prefix layer has to produce."""

    def __init__(self, width: int, shape: AttentionShape, *, bias: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.k_proj = linear(width, shape.kv_heads * shape.head_dim, bias=bias)
        self.v_proj = linear(width, shape.kv_heads * shape.head_dim, bias=bias)

    def key_value(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Project [b, t, width] to keys (rotated where there is a table) and values."""
        key = self.k_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        value = self.v_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        return KeyValue(rope.rotate(key) if rope else key, value)


class Attention(KeyValueProjection):
    """Attention of a sequence to itself and, if given, to a cached prefix before it."""

    def __init__(self, width: int, shape: AttentionShape, *, bias: bool = False) -> None:
        super().__init__(width, shape, bias=bias)
        self.q_proj = linear(width, shape.heads * shape.head_dim, bias=bias)
        self.o_proj = linear(shape.heads * shape.head_dim, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        rope: RopeTable | None,
        allowed: Tensor | None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Attend; returns [b, t, width] and this sequence's own keys and values.

        Args:
            x: [b, t, width].
            rope: Angles of the t tokens; None where positions are learned.
            allowed: As in `attend`, over prefix and own tokens.
            prefix: Keys and values that come before the own ones.
        """
        query = self.q_proj(x).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
        own = self.key_value(x, rope)
        memory = own if prefix is None else prefix.then(own)
        mixed = attend(rope.rotate(query) if rope else query, memory, allowed)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), own


class CrossAttention(nn.Module):
    """Attention to the cached keys and values of another transformer, projected once more.

    Args:
        width: Of the queries' sequence.
        memory: Heads of the cached keys and values.
        shape: Own heads.
    Source: SmolVLA, arXiv:2506.01844.
    """

    def __init__(self, width: int, *, memory: AttentionShape, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        memory_width = memory.kv_heads * memory.head_dim
        self.q_proj = linear(width, shape.heads * shape.head_dim)
        self.k_proj = linear(memory_width, shape.kv_heads * shape.head_dim)
        self.v_proj = linear(memory_width, shape.kv_heads * shape.head_dim)
        self.o_proj = linear(shape.heads * shape.head_dim, width)

    def memory(self, cached: KeyValue) -> KeyValue:
        """The cached keys (rotated already) and values, projected to the own heads."""
        return KeyValue(
            self._projected(self.k_proj, cached.key_bgsd),
            self._projected(self.v_proj, cached.value_bgsd),
        )

    def forward(
        self, x: Tensor, rope: RopeTable, allowed: Tensor | None, cached: KeyValue
    ) -> Tensor:
        """[b, t, width] attends to `cached`; only the queries are rotated."""
        query = self.q_proj(x).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
        mixed = attend(rope.rotate(query), self.memory(cached), allowed)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _projected(self, project: nn.Module, cached_bgsd: Tensor) -> Tensor:
        flat_bsw = cached_bgsd.transpose(1, 2).flatten(2)
        return project(flat_bsw).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)


def block_mask(query_blocks_t: Tensor, key_blocks_s: Tensor, key_mask_bs: Tensor) -> Tensor:
    """Who may look at whom when the tokens of a block see their own and all earlier blocks.

    Args:
        query_blocks_t, key_blocks_s: Block number of each token, not falling along the sequence.
        key_mask_bs: True where a key is real.
    Returns:
        bool [b, 1, t, s] for `attend`.
    """
    return ((key_blocks_s <= query_blocks_t[:, None]) & key_mask_bs[:, None])[:, None]
