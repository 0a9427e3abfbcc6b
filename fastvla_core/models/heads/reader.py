"""The transformer that every head has: its own tokens, beside what they read of the backbone.

Shapes: b batch, p prefix tokens, n own tokens, m own tokens so far, w backbone width, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import Attention, AttentionShape, KeyValue
from fastvla_core.layers.memory_attention import MemoryAttention
from fastvla_core.layers.mlp import GatedMLP
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.rope import RopeTable, rope_table
from fastvla_core.layers.transformer import TransformerLayer
from fastvla_core.models.heads.interface import BackboneOffer, Context, Wanted

_HEAD_DIM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """Sizes of a reader, and what it reads.

    Attributes:
        attention: "cross": own layers attend to themselves, then to the output of a backbone's
            layer. "joint": they attend to themselves and to a layer's keys and values at once.
        layers: The backbone's layer that each own layer reads, counted from 0; negative from the
            end. None spreads them evenly up to the last.
        depth: Own layers.
        width, mlp_width: Of the own tokens.
        heads: Query heads. None takes the backbone's (joint), or one per 64 of the width (cross).
    """

    attention: Literal["joint", "cross"] = "cross"
    layers: tuple[int, ...] | None = None
    depth: int = 4
    width: int = 512
    mlp_width: int = 2048
    heads: int | None = None

    def __post_init__(self) -> None:
        given = (self.depth, self.width, self.mlp_width, 1 if self.heads is None else self.heads)
        if min(given) < 1:
            raise CheckpointError(
                f"an action head of depth {self.depth}, width {self.width}, mlp_width "
                f"{self.mlp_width} and {self.heads} heads",
                mend="give numbers above 0",
            )
        if self.layers is not None and len(self.layers) != self.depth:
            raise CheckpointError(
                f"an action head of depth {self.depth} reads {len(self.layers)} layers",
                mend="name one layer of the backbone for each of the head's own",
            )


class CrossReadLayer(nn.Module):
    """Self-attention, cross-attention to one layer's output, feed-forward; each pre-normed."""

    called_by_name: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(
        self, width: int, shape: AttentionShape, *, memory_width: int, mlp_width: int
    ) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attn = Attention(width, shape)
        self.cross_norm = RMSNorm(width)
        self.memory_norm = RMSNorm(memory_width)
        self.cross_attn = MemoryAttention(width, memory_width=memory_width, shape=shape)
        self.mlp_norm = RMSNorm(width)
        self.mlp = GatedMLP(width, mlp_width)

    def memory(self, hidden_bpw: Tensor) -> KeyValue:
        """Keys and values of a backbone layer's output; the same at every step of a flow."""
        hidden = hidden_bpw.to(self.memory_norm.weight.dtype)
        return self.cross_attn.key_value(self.memory_norm(hidden), None)

    def forward(
        self,
        x_bnd: Tensor,
        rope: RopeTable,
        *,
        own: Tensor,
        seen: Tensor,
        memory: KeyValue,
        past: KeyValue | None,
    ) -> tuple[Tensor, KeyValue]:
        """[b, n, d] to the same, and its own keys and values."""
        mixed, made = self.self_attn(self.input_norm(x_bnd), rope, own, past)
        x = x_bnd + mixed
        x = x + self.cross_attn(self.cross_norm(x), memory, seen)
        return x + self.mlp(self.mlp_norm(x)), made


class JointReadLayer(TransformerLayer):
    """One attention over a backbone layer's keys and values and the own ones."""

    def read(
        self,
        x_bnd: Tensor,
        rope: RopeTable,
        *,
        own: Tensor,
        seen: Tensor,
        memory: KeyValue,
        past: KeyValue | None,
    ) -> tuple[Tensor, KeyValue]:
        """[b, n, d] to the same, and its own keys and values."""
        rows, tokens = len(x_bnd), x_bnd.shape[1]
        both = [part.expand(rows, 1, tokens, -1) for part in (seen, own)]
        before = memory if past is None else memory.then(past)
        return self(x_bnd, rope, torch.cat(both, dim=-1), before)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader keeps of one observation.

    Attributes:
        memory: Keys and values per own layer.
        context: What they are made of.
    """

    memory: tuple[KeyValue, ...]
    context: Context


class ActionReader(nn.Module):
    """Own tokens, the state as the first of them, through layers that read the backbone.

    Source: joint attention, pi0, arXiv:2410.24164; cross-attention, GR00T N1, arXiv:2503.14734.
    """

    def __init__(self, options: ReaderOptions, *, offer: BackboneOffer, state: int) -> None:
        super().__init__()
        self.is_joint = options.attention == "joint"
        self.shape = _shape(options, offer)
        self.reads = _layers(options, offer)
        self.state_in = nn.Linear(state, options.width)
        self.layers = nn.ModuleList(self._layer(options, offer) for _ in range(options.depth))
        self.final_norm = RMSNorm(options.width)

    @property
    def wanted(self) -> Wanted:
        """What it reads of the backbone."""
        layers = tuple(sorted(set(self.reads)))
        return Wanted(key_values=layers) if self.is_joint else Wanted(hidden=layers)

    @property
    def dtype(self) -> torch.dtype:
        """Of the own tokens."""
        return self.state_in.weight.dtype

    def compile_layers(self) -> None:
        """Compile each layer by itself."""
        for layer in self.layers:
            layer.compile(dynamic=False)

    def read(self, context: Context) -> Reading:
        """What the layers attend to; once per observation."""
        if self.is_joint:
            kept = (context.key_values[layer] for layer in self.reads)
            memory = tuple(
                KeyValue(own.key_bgsd.to(self.dtype), own.value_bgsd.to(self.dtype)) for own in kept
            )
        else:
            layers: Any = self.layers
            memory = tuple(
                layer.memory(context.hidden[read]) for layer, read in zip(layers, self.reads)
            )
        return Reading(memory, context)

    def state_token(self, context: Context) -> Tensor:
        """The state as a token, [b, 1, d]."""
        return self.state_in(context.state_bs.to(self.dtype))[:, None]

    def forward(
        self,
        x_bnd: Tensor,
        reading: Reading,
        *,
        positions_n: Tensor,
        own: Tensor,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """[b, n, d] behind the final norm, and keys and values of the own tokens, the past's too.

        Args:
            positions_n: Integer positions among the own tokens.
            own: Who looks at whom, bool broadcastable to [b, 1, n, m + n].
            past: What an earlier call returned for the tokens before.
        """
        seen = reading.context.mask_bp[:, None, None, :].expand(-1, 1, x_bnd.shape[1], -1)
        ropes = self._ropes(positions_n, reading.context)
        kept: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            before = None if past is None else past[index]
            call: Any = layer.read if isinstance(layer, JointReadLayer) else layer
            x_bnd, made = call(
                x_bnd, ropes[index], own=own, seen=seen, memory=reading.memory[index], past=before
            )
            kept.append(made if before is None else before.then(made))
        return self.final_norm(x_bnd), tuple(kept)

    def _ropes(self, positions_n: Tensor, context: Context) -> list[RopeTable]:
        if not self.is_joint:
            rope = rope_table(positions_n, head_dim=self.shape.head_dim)
            return [rope] * len(self.layers)
        # As the backbone rotates its own tokens, going on right behind the prefix.
        positions_bn = context.next_position_b[:, None] + positions_n
        tables = {layer: context.rotation(positions_bn, layer) for layer in set(self.reads)}
        return [tables[layer] for layer in self.reads]

    def _layer(self, options: ReaderOptions, offer: BackboneOffer) -> nn.Module:
        if self.is_joint:
            return JointReadLayer(options.width, self.shape, mlp_width=options.mlp_width)
        return CrossReadLayer(
            options.width,
            self.shape,
            memory_width=offer.width,
            mlp_width=options.mlp_width,
        )


def _shape(options: ReaderOptions, offer: BackboneOffer) -> AttentionShape:
    if options.attention == "joint":
        if offer.attention is None:
            raise CheckpointError(
                f"joint attention cannot be used with this backbone: {offer.no_joint}",
                mend='set `attention: "cross"` in the head: it reads hidden states',
            )
        heads = options.heads or offer.attention.heads
        if heads % offer.attention.kv_heads:
            raise CheckpointError(
                f"a joint head of {heads} heads cannot share the backbone's "
                f"{offer.attention.kv_heads} key/value heads",
                mend="give a multiple of them, or leave `heads` out",
            )
        return AttentionShape(
            heads=heads, kv_heads=offer.attention.kv_heads, head_dim=offer.attention.head_dim
        )
    heads = options.heads or max(1, options.width // _HEAD_DIM)
    if options.width % (2 * heads):
        raise CheckpointError(
            f"an action head of width {options.width} cannot be cut into {heads} even heads",
            mend="make the width a multiple of twice the heads",
        )
    return AttentionShape(heads=heads, kv_heads=heads, head_dim=options.width // heads)


def _layers(options: ReaderOptions, offer: BackboneOffer) -> tuple[int, ...]:
    if options.layers is None:
        if options.depth > offer.depth and options.attention == "joint":
            raise CheckpointError(
                f"a joint head of {options.depth} layers reads a backbone of {offer.depth}",
                mend=f"give a depth of at most {offer.depth}, or name the `layers`",
            )
        steps = range(1, options.depth + 1)
        return tuple(max(0, offer.depth * step // options.depth - 1) for step in steps)
    for layer in options.layers:
        if not -offer.depth <= layer < offer.depth:
            raise CheckpointError(
                f"the action head reads layer {layer}, the backbone has {offer.depth}",
                mend=f"name layers from 0 to {offer.depth - 1}, or from -{offer.depth} to -1",
            )
    return tuple(layer % offer.depth for layer in options.layers)
