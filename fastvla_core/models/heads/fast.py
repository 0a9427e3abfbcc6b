"""FAST tokens, written one after the other by a decoder that reads the backbone.

Shapes: b batch, n tokens, k tokens read at once, t action steps, a action dimensions,
v vocabulary, d width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import KeyValue
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.models.heads.interface import (
    ActionHead,
    ActionSizes,
    BackboneOffer,
    Batch,
    Context,
    Wanted,
)
from fastvla_core.models.heads.reader import ActionReader, ReaderOptions, Reading
from fastvla_core.models.heads.token_decoding import (
    Decoded,
    Draft,
    decode_greedily,
    decode_speculatively,
)
from fastvla_core.models.heads.words import padded, word_loss
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastOptions(ReaderOptions):
    """Options of `FastHead`.

    Attributes:
        action_tokenizer: Folder or Hub name of the FAST tokenizer; a saved policy has it in
            `fast_tokenizer/`.
        max_tokens: Longest chunk in tokens, its end included.
        limit: Standard deviations that the tokenizer's range, -1 to 1, stands for.
        draft_width: Tokens that a draft guesses per pass.
    """

    action_tokenizer: str
    max_tokens: int = 128
    limit: float = 3.0
    draft_width: int = 8

    def __post_init__(self) -> None:
        # `super()` without arguments does not find the class that slots made anew.
        ReaderOptions.__post_init__(self)
        if min(self.max_tokens, self.draft_width) < 1 or self.limit <= 0:
            raise CheckpointError(
                f"a FAST head of {self.max_tokens} max_tokens, draft_width {self.draft_width} and "
                f"limit {self.limit}",
                mend="give numbers above 0",
            )


class FastHead(ActionHead):
    """A causal decoder over FAST's own vocabulary, so that every backbone will do.

    Attributes:
        draft: Guesses tokens for single observations; None decodes one token per pass.
        decoded: What the last chunk took.
    Source: FAST, arXiv:2501.09747.
    """

    options_type = FastOptions
    full_precision: ClassVar[tuple[str, ...]] = ("reader.state_in", "out")

    def __init__(
        self,
        options: FastOptions,
        *,
        offer: BackboneOffer,
        sizes: ActionSizes,
        action_tokenizer: FastTokenizer | None = None,
    ) -> None:
        super().__init__()
        if action_tokenizer is None:
            raise CheckpointError(
                "a FAST head needs a FAST tokenizer, and there is none",
                mend="name one in `head.action_tokenizer`, such as physical-intelligence/fast",
            )
        self._options, self._sizes = options, sizes
        self.tokenizer = action_tokenizer
        # Behind FAST's own tokens one that ends a chunk; it begins the next one too.
        self._end = action_tokenizer.vocab_size
        self.reader = ActionReader(options, offer=offer, state=sizes.state)
        self.tokens_in = nn.Embedding(self._end + 1, options.width)
        self.out = nn.Linear(options.width, self._end + 1)
        self.draft: Draft | None = None
        self.decoded: Decoded | None = None

    @property
    def wanted(self) -> Wanted:
        """What the reader reads."""
        return self.reader.wanted

    def compile_layers(self) -> None:
        """Nothing: the sequence is longer in every pass, and each length would be compiled."""

    def tokens(self, actions_bta: Tensor) -> list[list[int]]:
        """The tokens of normalised chunks, with their end."""
        scaled = (actions_bta.float() / self._options.limit).cpu().numpy()
        rows = [[*self.tokenizer.encode(chunk), self._end] for chunk in scaled]
        longest = max(map(len, rows))
        if longest > self._options.max_tokens:
            _log.warning("a chunk of %d tokens is cut to %d", longest, self._options.max_tokens)
        return [row[: self._options.max_tokens] for row in rows]

    def padded_tokens(self, actions_bta: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of normalised chunks, int64 [b, n], and which of them are real."""
        return padded(self.tokens(actions_bta), device=actions_bta.device)

    def loss(
        self, context: Context, batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean cross-entropy of the tokens, the end included.

        Returns:
            loss: scalar with gradient.
        """
        return {"loss": self.token_loss(context, *self.padded_tokens(batch["action"]))}

    def token_loss(self, context: Context, tokens_bn: Tensor, mask_bn: Tensor) -> Tensor:
        """The same for tokens that are known already."""
        begin = torch.full_like(tokens_bn[:, :1], self._end)
        given = torch.cat([begin, tokens_bn[:, :-1]], dim=1)
        return word_loss(_Written(self, context).read(given), tokens_bn, mask_bn)

    def actions(
        self, context: Context, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """The chunks of the likeliest tokens, float32 [b, t, a]."""
        written, options = _Written(self, context).begun(), self._options
        if self.draft is None or len(context.state_bs) > 1:
            decoded = decode_greedily(written, steps=options.max_tokens, end=self._end)
        else:
            decoded = decode_speculatively(
                written,
                self.draft,
                steps=options.max_tokens,
                end=self._end,
                width=options.draft_width,
            )
        self.decoded = decoded
        chunks = [self._chunk(row) for row in decoded.tokens_bn.tolist()]
        return torch.from_numpy(np.stack(chunks)).float().to(context.state_bs.device)

    def _chunk(self, row: Sequence[int]) -> np.ndarray:
        tokens = list(row[: row.index(self._end)] if self._end in row else row)
        sizes = self._sizes
        chunk = self.tokenizer.decode(tokens, steps=sizes.steps, dims=sizes.action)
        return chunk * self._options.limit


class _Written:
    """What has been written so far: the state and tokens; see `Continuation`."""

    logits_bv: Tensor

    def __init__(self, head: FastHead, context: Context) -> None:
        self._head = head
        self._reading: Reading = head.reader.read(context)
        self._state = head.reader.state_token(context)
        self._past: tuple[KeyValue, ...] | None = None

    def begun(self) -> _Written:
        """The same, behind the token that begins."""
        begin = torch.full((len(self._state), 1), self._head._end, device=self._state.device)
        self.logits_bv = self.read(begin)[:, -1]
        return self

    def read(self, tokens_bk: Tensor) -> Tensor:
        """Append tokens; the logits [b, k, v] behind each of them, float32."""
        x = self._head.tokens_in(tokens_bk).to(self._state.dtype)
        first = self._past is None
        x = torch.cat([self._state, x], dim=1) if first else x
        before = 0 if self._past is None else self._past[0].key_bgsd.shape[2]
        positions = torch.arange(before, before + x.shape[1], device=x.device)
        everyone = torch.arange(before + x.shape[1], device=x.device)
        own = (everyone <= positions[:, None])[None, None]
        x, self._past = self._head.reader(
            x, self._reading, positions_n=positions, own=own, past=self._past
        )
        return self._head.out(x[:, 1:] if first else x).float()

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens."""
        if count and self._past is not None:
            self._past = tuple(
                KeyValue(layer.key_bgsd[:, :, :-count], layer.value_bgsd[:, :, :-count])
                for layer in self._past
            )
