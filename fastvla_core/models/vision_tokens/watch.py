"""Listens to what an action expert looks at in the prefix.

Shapes: b batch, h query heads, g key/value heads, t expert tokens, q prefix tokens, d head size.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fastvla_core.layers.attention import CrossAttention, Mask, dense_mask
from fastvla_core.models.flow_prefix import Velocity


class AttentionWatch:
    """While it is entered, the attention of the given layers to the prefix is written down.

    Args:
        layers: Of the expert; each has its attention as `self_attn`, called with its input, the
            rotation, who may look at whom, and the keys and values of the prefix.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._modules: list[Any] = [layer.self_attn for layer in layers]
        self._handles: list[RemovableHandle] = []
        self._seen_bq: list[Tensor] = []
        self._eager: Any = None

    def __enter__(self) -> AttentionWatch:
        # What was compiled without hooks does not call them. Where nothing was, asking for eager
        # execution would only import the compiler.
        if "torch._dynamo" in sys.modules:
            self._eager = torch.compiler.set_stance("force_eager")
            self._eager.__enter__()
        self._handles = [module.register_forward_hook(self._see) for module in self._modules]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        if self._eager is not None:
            self._eager.__exit__(kind, error, trace)

    @property
    def attention_bq(self) -> Tensor:
        """Mean attention to each prefix token over layers, heads and expert tokens, [b, q]."""
        assert self._seen_bq, "the expert's layers call their attention in another way"
        return torch.stack(self._seen_bq).mean(dim=0)

    def _see(self, module: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        x, rope, allowed, prefix = inputs
        with torch.no_grad():
            memory = module.memory(prefix) if isinstance(module, CrossAttention) else prefix
            query = module.q_proj(x).unflatten(-1, (module.shape.heads, -1)).transpose(1, 2)
            self._seen_bq.append(_weights(rope.rotate(query), memory.key_bgsd, allowed))


def _weights(q_bhtd: Tensor, key_bgqd: Tensor, allowed: Mask) -> Tensor:
    """Mean softmax attention among the prefix tokens alone, [b, q]."""
    b, h, t, d = q_bhtd.shape
    groups, length = key_bgqd.shape[1:3]
    scores = q_bhtd.reshape(b, groups, h // groups * t, d) @ key_bgqd.mT
    scores_bhtq = (scores.float() * d**-0.5).view(b, h, t, length)
    seen = dense_mask(allowed)
    assert seen is not None
    return (
        scores_bhtq.masked_fill(~seen[..., :length], float("-inf")).softmax(dim=-1).mean(dim=(1, 2))
    )


def watching_last(velocity: Velocity, watch: AttentionWatch, *, steps: int) -> Velocity:
    """The same velocity, whose call number `steps` is watched."""
    calls = itertools.count(1)

    def watched(x_bta: Tensor, time: float | Tensor) -> Tensor:
        if next(calls) < steps:
            return velocity(x_bta, time)
        with watch:
            return velocity(x_bta, time)

    return watched
