"""The language models inside the policies people have: Gemma and Llama (SmolLM2), one class.

Shapes: b batch, t tokens, w width, k half of a head's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import AttentionShape, KeyValue, Mask
from fastvla_core.layers.mlp import Activation, gelu_tanh
from fastvla_core.layers.norm import OffsetRMSNorm, RMSNorm
from fastvla_core.layers.rope import RopeTable, rope_table_of_angles
from fastvla_core.layers.transformer import Norm, TransformerLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSize:
    """Sizes of a decoder.

    Attributes:
        width, depth, mlp_width: Of the transformer.
        attention: Its heads.
        eps: Of the norms.
        rope_base: Longest wavelength of the rotation divided by 2 pi.
    """

    width: int
    depth: int
    mlp_width: int
    attention: AttentionShape
    eps: float = 1e-6
    rope_base: float = 10_000.0


@dataclass(frozen=True, slots=True)
class DecoderStyle:
    """What tells one family of decoders from another: norm and activation."""

    norm: Callable[..., RMSNorm]
    activation: Activation

    def norm_of(self, size: DecoderSize) -> Norm:
        """The norm with the size's epsilon."""
        return partial(self.norm, eps=size.eps)


GEMMA = DecoderStyle(OffsetRMSNorm, gelu_tanh)
LLAMA = DecoderStyle(RMSNorm, functional.silu)


def decoder_layers(size: DecoderSize, style: DecoderStyle) -> nn.ModuleList:
    """The transformer layers of a decoder."""
    return nn.ModuleList(
        TransformerLayer(
            size.width,
            size.attention,
            mlp_width=size.mlp_width,
            norm=style.norm_of(size),
            activation=style.activation,
        )
        for _ in range(size.depth)
    )


def rotation(positions_bt: Tensor, size: DecoderSize) -> RopeTable:
    """The rotation of tokens at integer positions, which may differ between samples."""
    half = size.attention.head_dim // 2
    # The exact operations matter: an angle is the frequency times a position of up to 1,000.
    exponent_k = torch.arange(half, device=positions_bt.device).float() / half
    return rope_table_of_angles(
        positions_bt.float()[..., None] * (1.0 / size.rope_base**exponent_k)
    )


class Decoder(nn.Module):
    """Token embedding, transformer layers, final norm."""

    def __init__(self, size: DecoderSize, *, style: DecoderStyle, vocab_size: int) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(vocab_size, size.width)
        self.layers = decoder_layers(size, style)
        self.final_norm = style.norm_of(size)(size.width)

    def embed(self, tokens_bt: Tensor) -> Tensor:
        """Token ids to [b, t, w], scaled to unit variance per component."""
        return self.embed_tokens(tokens_bt) * math.sqrt(self.size.width)

    def memory(
        self,
        x_btw: Tensor,
        positions_bt: Tensor,
        allowed: Mask,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[KeyValue, ...]:
        """Keys and values of every layer, which is all that an action expert reads.

        Args:
            x_btw: Embedded tokens.
            positions_bt: Integer position of each.
            allowed: As in `attend`, over `past` and own tokens.
            past: What an earlier call returned for the tokens before; in the result, too.
        """
        rope = rotation(positions_bt, self.size)
        before = [None] * len(self.layers) if past is None else list(past)
        memory: list[KeyValue] = []
        for layer, known in zip(list(self.layers)[:-1], before):
            x_btw, own = layer(x_btw, rope, allowed, known)
            memory.append(own if known is None else known.then(own))
        last: Any = self.layers[-1]
        own = last.key_value(x_btw, rope)
        return (*memory, own if before[-1] is None else before[-1].then(own))

    def forward(
        self,
        x_btw: Tensor,
        positions_bt: Tensor,
        allowed: Mask,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """The normalised output [b, t, w], and keys and values of every layer, `past` included.

        Args:
            past: What an earlier call returned for the tokens before; `allowed` covers them too.
        """
        rope = rotation(positions_bt, self.size)
        memory: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            before = past[index] if past is not None else None
            x_btw, own = layer(x_btw, rope, allowed, before)
            memory.append(own if before is None else before.then(own))
        return self.final_norm(x_btw), tuple(memory)
