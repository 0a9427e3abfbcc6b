"""ACT's transformer layers: positions are added in front of every attention, not to the tokens.

Shapes: b batch, h heads, t query tokens, s key tokens, w width, d head dimension.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.linear import linear
from fastvla_core.models.policies.act.config import ActConfig


class MultiHeadAttention(nn.Module):
    """Attention whose queries, keys and values come from three sequences."""

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = linear(width, width, bias=True)
        self.k_proj = linear(width, width, bias=True)
        self.v_proj = linear(width, width, bias=True)
        self.o_proj = linear(width, width, bias=True)

    def forward(
        self, query_btw: Tensor, key_bsw: Tensor, value_bsw: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """[b, t, w].

        Args:
            allowed: bool, broadcastable to [b, 1, t, s]; True where a query may look.
        """
        mixed = functional.scaled_dot_product_attention(
            self._heads(self.q_proj(query_btw)),
            self._heads(self.k_proj(key_bsw)),
            self._heads(self.v_proj(value_bsw)),
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with dropout between them."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.up_proj = linear(config.dim_model, config.dim_feedforward, bias=True)
        self.down_proj = linear(config.dim_feedforward, config.dim_model, bias=True)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = getattr(functional, config.feedforward_activation)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.down_proj(self.dropout(self.activation(self.up_proj(x))))


class Residual(nn.Module):
    """Adds what a part gives, with the norm in front of the part or behind the sum."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim_model)
        self.dropout = nn.Dropout(config.dropout)
        self.pre_norm = config.pre_norm

    def before(self, x: Tensor) -> Tensor:
        """What the part reads."""
        return self.norm(x) if self.pre_norm else x

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        """The sum with what the part gave."""
        summed = x + self.dropout(given)
        return summed if self.pre_norm else self.norm(summed)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(
            config.dim_model, heads=config.n_heads, dropout=config.dropout
        )
        self.mlp = FeedForward(config)
        self.attention_residual = Residual(config)
        self.mlp_residual = Residual(config)

    def forward(self, x_btw: Tensor, positions: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[b, t, w]; positions are [1 or b, t, w], `allowed` as in `MultiHeadAttention`."""
        read = self.attention_residual.before(x_btw)
        placed = read + positions
        x = self.attention_residual.after(x_btw, self.self_attn(placed, placed, read, allowed))
        return self.mlp_residual.after(x, self.mlp(self.mlp_residual.before(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the observation, and a feed-forward part."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width, heads, dropout = config.dim_model, config.n_heads, config.dropout
        self.self_attn = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.cross_attn = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.mlp = FeedForward(config)
        self.attention_residual = Residual(config)
        self.cross_residual = Residual(config)
        self.mlp_residual = Residual(config)

    def forward(
        self, x_btw: Tensor, positions: Tensor, memory_bsw: Tensor, memory_positions: Tensor
    ) -> Tensor:
        """[b, t, w]; `memory` is what the encoder made of the observation."""
        read = self.attention_residual.before(x_btw)
        placed = read + positions
        x = self.attention_residual.after(x_btw, self.self_attn(placed, placed, read))
        read = self.cross_residual.before(x)
        seen = self.cross_attn(read + positions, memory_bsw + memory_positions, memory_bsw)
        x = self.cross_residual.after(x, seen)
        return self.mlp_residual.after(x, self.mlp(self.mlp_residual.before(x)))


class Encoder(nn.Module):
    """Encoder layers, and a norm behind them where each has its own in front."""

    def __init__(self, config: ActConfig, *, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x_btw: Tensor, positions: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[b, t, w]; see `EncoderLayer`."""
        for layer in self.layers:
            x_btw = layer(x_btw, positions, allowed)
        return self.norm(x_btw)


class Decoder(nn.Module):
    """Decoder layers and a norm."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(
        self, x_btw: Tensor, positions: Tensor, memory_bsw: Tensor, memory_positions: Tensor
    ) -> Tensor:
        """[b, t, w]; see `DecoderLayer`."""
        for layer in self.layers:
            x_btw = layer(x_btw, positions, memory_bsw, memory_positions)
        return self.norm(x_btw)
