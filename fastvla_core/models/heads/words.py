"""Words behind an observation, by the language model that reads it: answers, or actions as tokens.

Shapes: b batch, p prefix tokens, n words, w width of the language model, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fastvla_core.models.backbones.decoder import Decoder
from fastvla_core.models.heads.flow_parts import Prefix, PrefixTokens


class WritingModel(Protocol):
    """A policy's network whose language model can write words."""

    @property
    def vision_tower(self) -> torch.nn.Module:
        """What images are read by."""
        ...

    @property
    def language_model(self) -> Decoder:
        """What words are read and written by."""
        ...

    def prefix_tokens(self, batch: Mapping[str, Tensor]) -> PrefixTokens:
        """Embed images and words."""
        ...

    def word_logits(self, hidden: Tensor) -> Tensor:
        """The language model's output [..., w] to logits over its vocabulary, float32."""
        ...


def told_by(text: Decoder, prefix: PrefixTokens, words_bn: Tensor, mask_bn: Tensor) -> Tensor:
    """What the language model tells each word from, [b, n, w]: its output at the one before it.

    Args:
        prefix: With a real token in each row; the first word is told from the last of them.
        words_bn: Each sees the prefix and the words before it.
        mask_bn: True where a word is real; padding stands behind all of them.
    """
    length, count = prefix.x_bpw.shape[1], words_bn.shape[1]
    own = prefix.blocks_p.max() + 1 + torch.arange(count, device=words_bn.device)
    both = PrefixTokens(
        torch.cat([prefix.x_bpw, text.embed(words_bn)], dim=1),
        torch.cat([prefix.mask_bp, mask_bn], dim=1),
        torch.cat([prefix.blocks_p, own]),
    )
    hidden, _ = text(both.x_bpw, both.positions_bp, both.allowed)
    places = torch.arange(length + count, device=words_bn.device)
    last_b1 = (places[:length] * prefix.mask_bp).amax(dim=1, keepdim=True)
    before = torch.cat([last_b1, places[length:-1].expand(len(words_bn), -1)], dim=1)
    return hidden.gather(1, before[..., None].expand(-1, -1, hidden.shape[-1]))


def behind_each(text: Decoder, prefix: Prefix, words_bn: Tensor) -> Tensor:
    """The language model's output [b, n, w] at words behind a prefix that it has read already."""
    own = torch.arange(words_bn.shape[1], device=words_bn.device)
    hidden, _ = text(
        text.embed(words_bn), prefix.behind(len(own)), prefix.seen_with(own), prefix.layers
    )
    return hidden


def word_loss(logits_bnv: Tensor, words_bn: Tensor, counted_bn: Tensor) -> Tensor:
    """Mean cross-entropy of the words that count, a scalar."""
    logits, words = logits_bnv.flatten(0, 1), words_bn.flatten()
    errors = functional.cross_entropy(logits, words, reduction="none")
    counted = counted_bn.flatten()
    return (errors * counted).sum() / counted.sum().clamp_min(1)


def padded(rows: Sequence[Sequence[int]], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids of rows of several lengths, int64 [b, n], and which of them are real."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids.to(device), (torch.arange(longest) < lengths[:, None]).to(device)
