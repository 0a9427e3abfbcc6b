"""Action chunks to the tokens of pi0-FAST, and its output to actions.

Shapes: b batch, n tokens, t action steps, a action dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastvla_core.errors import PolicyError
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.lerobot.transition import Transition
from fastvla_core.models.policies.pi0_fast.config import ActionWords, Pi0FastConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeActions:
    """Normalised actions to [bos] "Action: " FAST tokens "|" [eos], padded with zeros.

    Attributes:
        length: Tokens in the result.
    """

    fast: FastTokenizer
    text: TextTokenizer
    words: ActionWords
    length: int

    def __call__(self, transition: Transition) -> Transition:
        """The same with action tokens; without actions, the same."""
        if transition.action is None:
            return transition
        chunks = transition.action.float().cpu().numpy()
        tokens = torch.zeros(len(chunks), self.length, dtype=torch.int64)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for index, chunk in enumerate(chunks):
            row = self.row(chunk)
            tokens[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return replace(transition, action_tokens=tokens, action_token_mask=mask)

    def row(self, chunk_ta: np.ndarray) -> list[int]:
        """The tokens of one chunk, cut to `length`."""
        words = self.words
        fast = [words.last - token for token in self.fast.encode(chunk_ta)]
        row = [words.bos, *words.prefix, *fast, words.end, self.text.special_id("eos_token")]
        if len(row) > self.length:
            _log.warning("a chunk of %d tokens is cut to %d", len(row), self.length)
        return row[: self.length]


class Pi0FastProcessor(LeRobotProcessor):
    """Turns generated tokens into actions."""

    config: Pi0FastConfig

    @property
    def _actions(self) -> TokenizeActions:
        return next(step for step in self.before if isinstance(step, TokenizeActions))

    def vectors(self, ready: Transition) -> dict[str, Tensor]:
        """The prompt, and the actions as tokens."""
        found = super().vectors(ready)
        found.pop("state", None)
        if ready.action_tokens is not None and ready.action_token_mask is not None:
            found["action_tokens"] = ready.action_tokens
            found["action_token_mask"] = ready.action_token_mask
        return found

    def actions(self, output: Tensor) -> Tensor:
        """Generated tokens [b, n] to normalised actions, float32 [b, n_action_steps, a].

        Raises:
            PolicyError: what was generated are no actions.
        """
        chunks = [self._chunk(row) for row in output.tolist()]
        return torch.from_numpy(np.stack(chunks)).float()

    def _chunk(self, row: Sequence[int]) -> np.ndarray:
        words = self.config.words
        if self.config.validate_action_token_prefix and tuple(row[:2]) != words.prefix[:2]:
            raise PolicyError(
                f"the policy wrote the tokens {list(row[:4])} where 'Action:' should be",
                mend="give an instruction like those it was trained on",
            )
        ended = list(row[: row.index(words.end)] if words.end in row else row)
        fast = [words.last - token for token in _without(ended, words.prefix)]
        return self._actions.fast.decode(
            fast, steps=self.config.n_action_steps, dims=self.config.action_dim
        )


def _without(tokens: list[int], words: Sequence[int]) -> list[int]:
    """All but the places where `words` stand."""
    index, length = 0, len(words)
    while index <= len(tokens) - length:
        if tuple(tokens[index : index + length]) == tuple(words):
            tokens = tokens[:index] + tokens[index + length :]
        else:
            index += 1
    return tokens
