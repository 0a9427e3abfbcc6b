"""Grouped-query attention that can also attend to keys and values computed before.

Shapes: b batch, h query heads, g key/value heads, t query tokens, s key tokens, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor, nn

from fastvla_core.kernels.cross_attention import cross_attention
from fastvla_core.kernels.prefix_attention import (
    BlockMask,
    KeyValue,
    Mask,
    block_mask,
    dense_mask,
    prefix_attention,
)
from fastvla_core.kernels.qkv_rope import qkv_rope, serves
from fastvla_core.kernels.switch import takes_kernel
from fastvla_core.layers.linear import as_projection, linear
from fastvla_core.layers.rope import RopeTable

__all__ = [
    "Attention",
    "AttentionShape",
    "BlockMask",
    "CrossAttention",
    "KeyValue",
    "KeyValueProjection",
    "Mask",
    "attend",
    "block_mask",
    "dense_mask",
]


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


def attend(
    q_bhtd: Tensor, memory: KeyValue, allowed: Mask | None = None, prefix: KeyValue | None = None
) -> Tensor:
    """Softmax attention; returns [b, h, t, d].

    Args:
        allowed: A `BlockMask`, or a boolean broadcastable to [b, 1, t, s], over the prefix' keys,
            then the memory's; True where a query may look. Each row needs at least one True.
        prefix: Keys and values that come before those of `memory`.
    Source: Ainslie et al., arXiv:2305.13245 (grouped queries).
    """
    # A mask that is the same for every query hides keys only; that kernel has gradients too.
    if takes_kernel("cross_attention", q_bhtd) and prefix is None and _hides_keys(allowed):
        return cross_attention(q_bhtd, memory, allowed[:, 0, 0])
    return prefix_attention(q_bhtd, memory, allowed, prefix=prefix)


def _hides_keys(allowed: Mask | None) -> TypeGuard[Tensor]:
    return isinstance(allowed, Tensor) and allowed.ndim == 4 and allowed.shape[1:3] == (1, 1)


class KeyValueProjection(nn.Module):
    """Keys and values of a sequence: all that the last prefix layer has to produce."""

    def __init__(self, width: int, shape: AttentionShape, *, bias: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.k_proj = linear(width, shape.kv_heads * shape.head_dim, bias=bias)
        self.v_proj = linear(width, shape.kv_heads * shape.head_dim, bias=bias)

    def key_value(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Project [b, t, width] to keys (rotated where there is a table) and values."""
        if made := self._fused(x, None, rope):
            return KeyValue(*made[1:])
        key = self.k_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        value = self.v_proj(x).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        return KeyValue(rope.rotate(key) if rope else key, value)

    def _fused(
        self, x: Tensor, q_proj: nn.Module | None, rope: RopeTable | None
    ) -> tuple[Tensor | None, Tensor, Tensor] | None:
        """Queries (if asked for), keys and values by one kernel; None where it does not serve."""
        if not takes_kernel("qkv_rope", x):
            return None
        query = None if q_proj is None else as_projection(q_proj, x)
        key, value = as_projection(self.k_proj, x), as_projection(self.v_proj, x)
        wanted = q_proj is None or query is not None
        if not wanted or key is None or value is None or not serves(x, query, key, value, rope):
            return None
        return qkv_rope(x, query, key, value, head_dim=self.shape.head_dim, rope=rope)


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
        allowed: Mask | None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Attend; returns [b, t, width] and this sequence's own keys and values.

        Args:
            x: [b, t, width].
            rope: Angles of the t tokens; None where positions are learned.
            allowed: As in `attend`, over prefix and own tokens.
            prefix: Keys and values that come before the own ones.
        """
        query, own = self._projected(x, rope)
        mixed = attend(query, own, allowed, prefix)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), own

    def _projected(self, x: Tensor, rope: RopeTable | None) -> tuple[Tensor, KeyValue]:
        if made := self._fused(x, self.q_proj, rope):
            query, key, value = made
            assert query is not None
            return query, KeyValue(key, value)
        query = self.q_proj(x).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
        return rope.rotate(query) if rope else query, self.key_value(x, rope)


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

    def forward(self, x: Tensor, rope: RopeTable, allowed: Mask | None, cached: KeyValue) -> Tensor:
        """[b, t, width] attends to `cached`; only the queries are rotated."""
        return self.read(x, rope, allowed, self.memory(cached))

    def read(self, x: Tensor, rope: RopeTable, allowed: Mask | None, memory: KeyValue) -> Tensor:
        """The same, where `memory` made keys and values ahead."""
        query = self.q_proj(x).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
        mixed = attend(rope.rotate(query), memory, allowed)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _projected(self, project: nn.Module, cached_bgsd: Tensor) -> Tensor:
        flat_bsw = cached_bgsd.transpose(1, 2).flatten(2)
        return project(flat_bsw).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
