"""Autoregressive decoding: one token per pass, or several that a cheap draft has guessed.

Shapes: b batch, k tokens read at once, n generated tokens, v vocabulary, p tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Continuation(Protocol):
    """A sequence that a language model has read so far.

    Attributes:
        logits_bv: Of the next token.
    """

    logits_bv: Tensor

    def read(self, tokens_bk: Tensor) -> Tensor:
        """Append tokens; the logits [b, k, v] behind each of them."""
        ...

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens."""
        ...


class Draft(Protocol):
    """Guesses how a sequence goes on."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most `count` further tokens; fewer where it has no idea."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Generated tokens and what they took.

    Attributes:
        tokens_bn: int64; zeros behind the place where decoding stopped.
        passes: Passes through the model, the first over the prompt not counted.
        drafted, accepted: Tokens that the draft guessed, and those that were right.
    """

    tokens_bn: Tensor
    passes: int
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses that were right."""
        return self.accepted / self.drafted if self.drafted else 0.0


def decode_greedily(continuation: Continuation, *, steps: int, end: int) -> Decoded:
    """The likeliest token each time, until every row has the token `end` or `steps` are done.

    A row that has ended goes on as long as another has not; what stands behind its end is noise.
    """
    token_b1 = continuation.logits_bv.argmax(dim=-1, keepdim=True)
    found, ended_b1 = [token_b1], token_b1 == end
    while len(found) < steps and not bool(ended_b1.all()):
        token_b1 = continuation.read(token_b1)[:, -1].argmax(dim=-1, keepdim=True)
        found.append(token_b1)
        ended_b1 |= token_b1 == end
    tokens = token_b1.new_zeros(len(token_b1), steps)
    tokens[:, : len(found)] = torch.cat(found, dim=1)
    return Decoded(tokens_bn=tokens, passes=len(found) - 1)


def decode_speculatively(
    continuation: Continuation, draft: Draft, *, steps: int, end: int, width: int
) -> Decoded:
    """The same tokens as `decode_greedily` for one row, in fewer passes.

    Each pass reads the last token and up to `width` guesses behind it; the guesses are kept as
    far as the model would have chosen them, and its own choice follows.

    Source: Leviathan et al., arXiv:2211.17192 (greedy case).
    """
    tokens = [int(continuation.logits_bv.argmax())]
    device = continuation.logits_bv.device
    passes = drafted = accepted = 0
    while len(tokens) < steps and tokens[-1] != end:
        guesses = draft.propose(tokens, min(width, steps - len(tokens) - 1))
        logits = continuation.read(torch.tensor([[tokens[-1], *guesses]], device=device))
        chosen = logits[0].argmax(dim=-1).tolist()
        right = _agreeing(guesses, chosen)
        continuation.forget(len(guesses) - right)
        passes, drafted, accepted = passes + 1, drafted + len(guesses), accepted + right
        tokens += chosen[: right + 1]
        if end in tokens:
            tokens = tokens[: tokens.index(end) + 1]
    result = torch.zeros(1, steps, dtype=torch.int64, device=device)
    result[0, : len(tokens)] = torch.tensor(tokens, device=device)
    return Decoded(tokens_bn=result, passes=passes, drafted=drafted, accepted=accepted)


def _agreeing(guesses: Sequence[int], chosen: Sequence[int]) -> int:
    for index, guess in enumerate(guesses):
        if guess != chosen[index]:
            return index
    return len(guesses)
