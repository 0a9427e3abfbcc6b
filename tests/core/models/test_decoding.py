"""Drafts make decoding shorter and change nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvla_core.models.heads.ngram_draft import NgramDraft, load_ngram_draft
from fastvla_core.models.heads.token_decoding import decode_greedily, decode_speculatively
from fastvla_core.models.lerobot.fast_tokenizer import cosine_matrix
from fastvla_core.policy import FastVLA

from .lerobot.checkpoints import copied

_VOCABULARY, _END = 7, 6


class _Hash:
    """A language model whose next token hangs on all tokens before it."""

    def __init__(self, seed: int) -> None:
        self._tokens = [seed]
        self.logits_bv = self._logits()[None]

    def _logits(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash(tuple(self._tokens)) % 2**31)
        return torch.rand(_VOCABULARY, generator=generator)

    def read(self, tokens_bk: torch.Tensor) -> torch.Tensor:
        rows = []
        for token in tokens_bk[0].tolist():
            self._tokens.append(token)
            rows.append(self._logits())
        return torch.stack(rows)[None]

    def forget(self, count: int) -> None:
        del self._tokens[len(self._tokens) - count :]


class _Guess:
    """Right for a while, then wrong."""

    def __init__(self, tokens: Sequence[int], wrong: int) -> None:
        self._tokens, self._wrong = list(tokens), wrong

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        guesses = self._tokens[len(tokens) : len(tokens) + count]
        if self._wrong < len(guesses):
            guesses[self._wrong] = (guesses[self._wrong] + 1) % _VOCABULARY
        return guesses


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 12),
    width=st.integers(0, 6),
    wrong=st.integers(0, 6),
)
def test_speculative_decoding_gives_the_greedy_tokens(
    seed: int, steps: int, width: int, wrong: int
):
    greedy = decode_greedily(_Hash(seed), steps=steps, end=_END)
    draft = _Guess(greedy.tokens_bn[0].tolist(), wrong)
    quick = decode_speculatively(_Hash(seed), draft, steps=steps, end=_END, width=width)
    assert torch.equal(quick.tokens_bn, greedy.tokens_bn)
    assert quick.passes <= greedy.passes
    assert 0 <= quick.accepted <= quick.drafted


def test_an_ngram_draft_goes_on_as_training_did_and_survives_saving(tmp_path: Path):
    draft = NgramDraft.fit([[1, 2, 3, 4], [9, 2, 3, 5], [1, 2, 3, 4]], order=3)
    assert draft.propose([1, 2], 5) == [3, 4]
    assert draft.propose([9, 2], 5) == [3, 5]
    assert draft.propose([8], 5) == []
    assert load_ngram_draft(tmp_path) is None
    draft.save(tmp_path)
    again = load_ngram_draft(tmp_path)
    assert again is not None
    assert again.propose([0, 2], 5) == draft.propose([0, 2], 5) == [3, 4]


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_the_cosine_transform_is_orthonormal(steps: int):
    matrix = cosine_matrix(steps)
    assert np.allclose(matrix @ matrix.T, np.eye(steps))


def test_a_draft_shortens_pi0_fast_and_is_saved_with_it(tmp_path: Path):
    policy = FastVLA.from_pretrained(copied("pi0_fast", tmp_path))
    batch = policy.processor.observation_batch(
        [policy.processor.random_observation(0)], device=torch.device("cpu")
    )
    with torch.inference_mode():
        greedy = policy.model(batch)
        alone = policy.model.decoded.passes
        policy.model.draft = NgramDraft.fit([greedy[0].tolist()])
        assert torch.equal(policy.model(batch), greedy)
    assert policy.model.decoded.passes < alone
    assert policy.model.decoded.acceptance > 0.3
    policy.save_pretrained(tmp_path / "saved")
    assert FastVLA.from_pretrained(tmp_path / "saved").model.draft is not None
