"""The pre-norm transformer layer that text encoder, vision stem, prefix and expert share."""

from __future__ import annotations

from torch import Tensor, nn

from fastvla_core.layers.attention import Attention, AttentionShape, KeyValue, KeyValueProjection
from fastvla_core.layers.mlp import GatedMLP
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.rope import RopeTable


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, shape: AttentionShape, *, mlp_width: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attn = Attention(width, shape)
        self.mlp_norm = RMSNorm(width)
        self.mlp = GatedMLP(width, mlp_width)

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


class KeyValueLayer(nn.Module):
    """The last layer of a prefix: nobody reads its output, so it only makes keys and values."""

    def __init__(self, width: int, shape: AttentionShape) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attn = KeyValueProjection(width, shape)

    def forward(self, x: Tensor, rope: RopeTable | None) -> KeyValue:
        """Keys and values of [b, t, width]."""
        return self.self_attn.key_value(self.input_norm(x), rope)
