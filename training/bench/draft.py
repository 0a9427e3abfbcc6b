"""Decoding with a draft beside greedy decoding: the same tokens in fewer passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvla_core.errors import FastVLAError
from fastvla_core.models.heads.ngram_draft import NgramDraft
from fastvla_core.models.heads.token_decoding import Decoded, Draft
from fastvla_core.models.policies.pi0_fast.model import Pi0Fast
from fastvla_core.policy import FastVLA

_MEASURED_SEED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTiming:
    """Both ways of decoding on the same observations.

    Attributes:
        identical: Whether every token was the same.
        tokens: Written per chunk.
        greedy_passes, draft_passes: Passes through the network per chunk behind the prompt's.
        acceptance: Share of the draft's guesses that the network would have chosen too.
        greedy_ms, draft_ms: Per chunk, reading the prompt included.
    """

    chunks: int
    identical: bool
    tokens: float
    greedy_passes: float
    draft_passes: float
    acceptance: float
    greedy_ms: float
    draft_ms: float
    speed_up: float


@dataclass(slots=True)
class _Run:
    """One way of decoding: its results and what it took."""

    results: list[Decoded]
    seconds: float = 0.0

    @property
    def passes(self) -> float:
        return sum(result.passes for result in self.results) / len(self.results)


def time_draft(path: str, *, rounds: int, threads: int) -> DraftTiming:
    """Decode `rounds` random observations both ways, in turn.

    A checkpoint without a draft gets one that is fitted to what the policy itself writes for as
    many other observations.

    Raises:
        FastVLAError: the policy writes no tokens.
    """
    torch.set_num_threads(threads)
    policy = FastVLA.from_pretrained(path)
    model = policy.model
    if not isinstance(model, Pi0Fast):
        raise FastVLAError(
            f"{path} writes no tokens, so there is nothing to draft",
            mend="name a checkpoint of type 'pi0_fast' with --policy",
        )
    draft = model.draft or NgramDraft.fit(written_rows(policy, seeds=range(rounds)))
    greedy, quick = _Run([]), _Run([])
    # The first one only prepares what libraries keep.
    for index in range(-1, rounds):
        batch = _batch(policy, _MEASURED_SEED + index)
        for run, chosen in ((greedy, None), (quick, draft)):
            result, seconds = _timed(model, batch, chosen)
            if index >= 0:
                run.results.append(result)
                run.seconds += seconds
    return _compared(greedy, quick)


def written_rows(policy: FastVLA, *, seeds: Sequence[int]) -> list[list[int]]:
    """What a policy writes for random observations, without what stands behind the end."""
    found = (_timed(policy.model, _batch(policy, seed), None)[0] for seed in seeds)
    # One token comes from the prompt, one more from each pass behind it.
    return [result.tokens_bn[0, : result.passes + 1].tolist() for result in found]


def _batch(policy: FastVLA, seed: int) -> dict[str, Tensor]:
    observation = policy.processor.random_observation(seed)
    return policy.processor.observation_batch([observation], device=policy.device)


def _timed(model: Pi0Fast, batch: dict[str, Tensor], draft: Draft | None) -> tuple[Decoded, float]:
    model.draft = draft
    with torch.inference_mode():
        start = time.perf_counter()
        model(batch)
        seconds = time.perf_counter() - start
    assert model.decoded is not None
    return model.decoded, seconds


def _compared(greedy: _Run, quick: _Run) -> DraftTiming:
    chunks = len(greedy.results)
    pairs = zip(greedy.results, quick.results, strict=True)
    drafted = sum(result.drafted for result in quick.results)
    accepted = sum(result.accepted for result in quick.results)
    return DraftTiming(
        chunks=chunks,
        identical=all(torch.equal(a.tokens_bn, b.tokens_bn) for a, b in pairs),
        tokens=greedy.passes + 1,
        greedy_passes=greedy.passes,
        draft_passes=quick.passes,
        acceptance=accepted / drafted if drafted else 0.0,
        greedy_ms=1e3 * greedy.seconds / chunks,
        draft_ms=1e3 * quick.seconds / chunks,
        speed_up=greedy.seconds / quick.seconds,
    )
