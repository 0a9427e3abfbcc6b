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

    def __init__(self, width: int, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        self.k_proj = linear(width, shape.kv_heads * shape.head_dim)
        self.v_proj = linear(width, shape.kv_heads * shape.head_dim)

    def key_value(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Project [b, t, width] to keys (rotated where there is a table) and values."""
        key = self.k_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        value = self.v_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        return KeyValue(rope.rotate(key) if rope else key, value)


class Attention(KeyValueProjection):
    """Attention of a sequence to itself and, if given, to a cached prefix before it."""

    def __init__(self, width: int, shape: AttentionShape) -> None:
        super().__init__(width, shape)
        self.q_proj = linear(width, shape.heads * shape.head_dim)
        self.o_proj = linear(shape.heads * shape.head_dim, width)

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
