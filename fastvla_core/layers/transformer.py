"""The pre-norm transformer layers that text encoders, vision stems, prefixes and experts share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import (
    Attention,
    AttentionShape,
    CrossAttention,
    KeyValue,
    KeyValueProjection,
)
from fastvla_core.layers.mlp import Activation, GatedMLP
from fastvla_core.layers.norm import AdaptiveRMSNorm, RMSNorm
from fastvla_core.layers.rope import RopeTable

Norm = Callable[[int], nn.Module]


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        shape: AttentionShape,
        *,
        mlp_width: int,
        norm: Norm = RMSNorm,
        activation: Activation = functional.silu,
    ) -> None:
        super().__init__()
        self.input_norm = norm(width)
        self.self_attn = Attention(width, shape)
        self.mlp_norm = norm(width)
        self.mlp = GatedMLP(width, mlp_width, activation=activation)

    def forward(
        self,
        x: Tensor,
        rope: RopeTable | None,
        allowed: Tensor | None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """[b, t, width] to the same and this layer's keys and values; see `Attention.forward`."""
        mixed, own = self.self_attn(self.input_norm(x), rope, allowed, prefix)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), own

    def key_value(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Only the keys and values of [b, t, width]."""
        return self.self_attn.key_value(self.input_norm(x), rope)


class AdaptiveTransformerLayer(nn.Module):
    """A transformer layer whose norms and residual gates follow a condition."""

    def __init__(
        self,
        width: int,
        shape: AttentionShape,
        *,
        mlp_width: int,
        eps: float,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.input_norm = AdaptiveRMSNorm(width, eps=eps)
        self.self_attn = Attention(width, shape)
        self.mlp_norm = AdaptiveRMSNorm(width, eps=eps)
        self.mlp = GatedMLP(width, mlp_width, activation=activation)

    def forward(
        self,
        x: Tensor,
        rope: RopeTable,
        allowed: Tensor,
        prefix: KeyValue,
        condition: Tensor,
    ) -> Tensor:
        """[b, t, width] to the same; the condition is [b, width]."""
        normed, gate = self.input_norm(x, condition)
        mixed, _ = self.self_attn(normed, rope, allowed, prefix)
        x = x + mixed * gate
        normed, gate = self.mlp_norm(x, condition)
        return x + self.mlp(normed) * gate


class CrossAttentionLayer(nn.Module):
    """x + cross-attention(norm(x)), then x + mlp(norm(x)); its tokens do not see each other."""

    def __init__(
        self,
        width: int,
        *,
        memory: AttentionShape,
        shape: AttentionShape,
        mlp_width: int,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.input_norm = norm(width)
        self.self_attn = CrossAttention(width, memory=memory, shape=shape)
        self.mlp_norm = norm(width)
        self.mlp = GatedMLP(width, mlp_width)

    def forward(self, x: Tensor, rope: RopeTable, allowed: Tensor, cached: KeyValue) -> Tensor:
        """[b, t, width] to the same; see `CrossAttention.forward`."""
        x = x + self.self_attn(self.input_norm(x), rope, allowed, cached)
        return x + self.mlp(self.mlp_norm(x))


class KeyValueLayer(nn.Module):
    """The last layer of a prefix: nobody reads its output, so it only makes keys and values."""

    def __init__(self, width: int, shape: AttentionShape) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attn = KeyValueProjection(width, shape)

    def forward(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Keys and values of [b, t, width]."""
        return self.self_attn.key_value(self.input_norm(x), rope)
