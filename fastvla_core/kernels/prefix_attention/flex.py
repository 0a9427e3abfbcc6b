"""FlexAttention over the same block numbers and key masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from .spec import BlockMask, KeyValue

Attention = Callable[..., Any]


@cache
def compiled() -> Attention:
    """FlexAttention as it is meant to run; eager, it holds all the scores."""
    return torch.compile(flex.flex_attention, dynamic=False)


def attend(
    q_bhtd: Tensor, memory: KeyValue, mask: BlockMask, *, attention: Attention | None = None
) -> Tensor:
    """The mixed values [b, h, t, d].

    Args:
        attention: What runs it; None takes `compiled`.
    """

    def seen(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return (mask.key_blocks_s[s] <= mask.query_blocks_t[t]) & mask.key_mask_bs[b, s]

    rows, keys = q_bhtd.shape[2], memory.key_bgsd.shape[2]
    blocks = flex.create_block_mask(
        seen, B=len(q_bhtd), H=None, Q_LEN=rows, KV_LEN=keys, device=q_bhtd.device.type
    )
    run = compiled() if attention is None else attention
    mixed: Tensor = run(
        q_bhtd,
        memory.key_bgsd,
        memory.value_bgsd,
        block_mask=blocks,
        enable_gqa=q_bhtd.shape[1] != memory.key_bgsd.shape[1],
    )
    return mixed
