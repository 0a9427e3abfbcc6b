"""The pre-norm transformer layers that text encoders, vision stems, prefixes and experts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import (
    Attention,
    AttentionShape,
    CrossAttention,
    KeyValue,
    KeyValueProjection,
    Mask,
)
from fastvla_core.layers.mlp import Activation, GatedMLP
from fastvla_core.layers.norm import AdaptiveRMSNorm, RMSNorm, Steering
from fastvla_core.layers.rope import RopeTable

Norm = Callable[[int], RMSNorm]


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    # What others call beside `forward`: whoever gathers weights for a call has to know.
    called_by_name: ClassVar[tuple[str, ...]] = ("key_value",)

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
        allowed: Mask | None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """[b, t, width] to the same and this layer's keys and values; see `Attention.forward`."""
        mixed, own = self.self_attn(self.input_norm(x), rope, allowed, prefix)
        x, normed = self.mlp_norm.add(x, mixed)
        return x + self.mlp(normed), own

    def key_value(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Only the keys and values of [b, t, width]."""
        return self.self_attn.key_value(self.input_norm(x), rope)


@dataclass(frozen=True, slots=True)
class LayerSteering:
    """What a condition makes of the two norms of a layer."""

    attention: Steering
    mlp: Steering

    def at(self, row: int) -> LayerSteering:
        """What one row of the condition asks for, for all samples."""
        return LayerSteering(self.attention.at(row), self.mlp.at(row))


class AdaptiveTransformerLayer(nn.Module):
    """A transformer layer whose norms and residual gates follow a condition."""

    called_by_name: ClassVar[tuple[str, ...]] = ("steering",)

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

    def steering(self, condition_bd: Tensor) -> LayerSteering:
        """What the condition asks of this layer's norms."""
        return LayerSteering(
            self.input_norm.steering(condition_bd), self.mlp_norm.steering(condition_bd)
        )

    def forward(
        self,
        x: Tensor,
        rope: RopeTable,
        allowed: Mask,
        prefix: KeyValue,
        condition: Tensor | LayerSteering,
    ) -> Tensor:
        """[b, t, width] to the same; the condition is [b, width], or what `steering` made of it."""
        steering = self.steering(condition) if isinstance(condition, Tensor) else condition
        normed = self.input_norm(x, steering.attention)
        mixed, _ = self.self_attn(normed, rope, allowed, prefix)
        gate = steering.attention.gate_bd
        x, normed = self.mlp_norm.add(x, mixed, gate, steering.mlp)
        return x + self.mlp(normed) * steering.mlp.gate_bd[:, None].to(x.dtype)


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

    def forward(self, x: Tensor, rope: RopeTable, allowed: Mask, cached: KeyValue) -> Tensor:
        """[b, t, width] to the same; see `CrossAttention.forward`."""
        return self._mixed(x, self.self_attn(self.input_norm(x), rope, allowed, cached))

    def read(self, x: Tensor, rope: RopeTable, allowed: Mask, memory: KeyValue) -> Tensor:
        """The same, where the attention's `memory` made keys and values ahead."""
        return self._mixed(x, self.self_attn.read(self.input_norm(x), rope, allowed, memory))

    def _mixed(self, x: Tensor, mixed: Tensor) -> Tensor:
        x, normed = self.mlp_norm.add(x, mixed)
        return x + self.mlp(normed)


class KeyValueLayer(nn.Module):
    """The last layer of a prefix: nobody reads its output, so it only makes keys and values."""

    def __init__(self, width: int, shape: AttentionShape) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attn = KeyValueProjection(width, shape)

    def forward(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Keys and values of [b, t, width]."""
        return self.self_attn.key_value(self.input_norm(x), rope)
