"""Who may look at whom, and what is looked at.

Shapes: b batch, g key/value heads, t query tokens, s key tokens, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def first(self, count: int) -> KeyValue:
        """Those of the first tokens."""
        return KeyValue(self.key_bgsd[:, :, :count], self.value_bgsd[:, :, :count])

    def detached(self) -> KeyValue:
        """The same, through which no gradient flows."""
        return KeyValue(self.key_bgsd.detach(), self.value_bgsd.detach())


@dataclass(frozen=True, slots=True)
class BlockMask:
    """The tokens of a block see their own and all earlier blocks, and only keys that are real.

    Made by `block_mask`.

    Attributes:
        dense: The same as a boolean [b, 1, t, s], True where a query may look.
        query_blocks_t, key_blocks_s: Block number of each token.
        key_mask_bs: True where a key is real.
    """

    dense: Tensor
    query_blocks_t: Tensor
    key_blocks_s: Tensor
    key_mask_bs: Tensor


Mask = Tensor | BlockMask


def block_mask(query_blocks_t: Tensor, key_blocks_s: Tensor, key_mask_bs: Tensor) -> BlockMask:
    """The mask of tokens whose blocks are known; each query has to see at least one key."""
    earlier_ts = key_blocks_s <= query_blocks_t[:, None]
    dense = (earlier_ts & key_mask_bs[:, None])[:, None]
    return BlockMask(dense, query_blocks_t, key_blocks_s, key_mask_bs)


def dense_mask(mask: Mask | None) -> Tensor | None:
    """The mask as a boolean tensor, broadcastable to [b, 1, t, s]."""
    return mask.dense if isinstance(mask, BlockMask) else mask
