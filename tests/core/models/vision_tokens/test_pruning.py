"""Which tokens stay, and that they stay where they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import PolicyError
from fastvla_core.models.vision_tokens.layout import PrefixLayout
from fastvla_core.models.vision_tokens.options import ScoreWeights, VisionTokens
from fastvla_core.models.vision_tokens.pruning import Hints, pruned
from fastvla_core.models.vision_tokens.scores import (
    TokenScorer,
    cell_changes,
    relevance,
    sparsity,
)

# Two cameras of 4 x 4 tokens between markers, three words, and two tokens of something else.
LAYOUT = PrefixLayout(cameras=2, rows=4, columns=4, words=3, before=2, after=1)
LENGTH, WIDTH = 2 * 19 + 3 + 2, 8
OTHERS = [0, 1, 18, 19, 20, 37, *range(38, LENGTH)]


def sequence(rows: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
    return x, torch.ones(rows, LENGTH, dtype=torch.bool)


def test_images_and_words_are_found_behind_their_markers():
    places = LAYOUT.image_places(torch.device("cpu")).tolist()
    assert sorted(places + OTHERS) == list(range(LENGTH))
    assert list(range(LENGTH))[LAYOUT.word_places] == [38, 39, 40]


@pytest.mark.parametrize("pruning", ["adaptive", "uniform", "pool"])
@pytest.mark.parametrize(("keep", "count"), [(0.25, 8), (0.5, 16)])
def test_the_share_is_kept_and_all_else_stays_in_order(pruning, keep, count):
    x, mask = sequence()
    left, kept = pruned(x, mask, LAYOUT, options=VisionTokens(pruning=pruning, keep=keep))
    assert left.shape == (2, count + len(OTHERS), WIDTH)
    for row in kept.index_bq.tolist():
        assert row == sorted(set(row))
        assert set(OTHERS) <= set(row)
    others = torch.tensor(OTHERS)
    assert torch.equal(left[kept.of(torch.isin(torch.arange(LENGTH), others).expand(2, -1))],
                       x[:, others].flatten(0, 1))  # fmt: skip


def test_an_even_quarter_is_every_second_row_and_column():
    x, mask = sequence()
    _, kept = pruned(x, mask, LAYOUT, options=VisionTokens(pruning="uniform", keep=0.25))
    first = [place - 2 for place in kept.index_bq[0].tolist() if 2 <= place < 18]
    assert first == [0, 2, 8, 10]


def test_pooling_gives_the_mean_of_each_square_in_the_place_of_its_first():
    x, mask = sequence()
    left, kept = pruned(x, mask, LAYOUT, options=VisionTokens(pruning="pool", keep=0.25))
    grid = x[:, 2:18].unflatten(1, (4, 4))
    at = kept.index_bq[0].tolist().index(2 + 10)
    torch.testing.assert_close(left[:, at], grid[:, 2:, 2:].mean(dim=(1, 2)))


def test_tokens_that_cannot_be_paired_are_not_pooled():
    layout = PrefixLayout(cameras=1, rows=2, columns=3, words=2)
    x, mask = torch.randn(1, 8, WIDTH), torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(PolicyError, match="2 x 3 tokens of an image cannot be pooled"):
        pruned(x, mask, layout, options=VisionTokens(pruning="pool", keep=0.25))


def only(**weights: float) -> VisionTokens:
    none = {"relevance": 0.0, "attention": 0.0, "change": 0.0}
    return VisionTokens(pruning="adaptive", keep=0.25, weights=ScoreWeights(**{**none, **weights}))


def kept_images(kept_row: Tensor) -> list[int]:
    places = LAYOUT.image_places(torch.device("cpu")).tolist()
    return [places.index(place) for place in kept_row.tolist() if place in places]


def test_what_the_previous_chunk_looked_at_stays():
    x, mask = sequence(1)
    attention = torch.zeros(1, 32)
    wanted = [1, 5, 6, 17, 20, 25, 30, 31]
    attention[:, wanted] = 0.01
    hints = Hints(attention_bi=attention)
    _, kept = pruned(x, mask, LAYOUT, options=only(attention=1.0), hints=hints)
    assert kept_images(kept.index_bq[0]) == wanted


def test_what_has_changed_stays():
    x, mask = sequence(1)
    change = torch.zeros(1, 32)
    change[:, 8:16] = 1.0
    hints = Hints(change_bi=change)
    _, kept = pruned(x, mask, LAYOUT, options=only(change=1.0), hints=hints)
    assert kept_images(kept.index_bq[0]) == list(range(8, 16))


def test_what_is_like_a_word_stays():
    x, mask = sequence(1)
    wanted = [3, 4, 9, 10, 16, 21, 22, 29]
    places = LAYOUT.image_places(torch.device("cpu"))[wanted]
    x[:, places] = 3 * x[:, LAYOUT.word_places.start, None].expand(-1, 8, -1)
    _, kept = pruned(x, mask, LAYOUT, options=only(relevance=1.0))
    assert kept_images(kept.index_bq[0]) == wanted
    mask[:, LAYOUT.word_places.start] = False
    _, kept = pruned(x, mask, LAYOUT, options=only(relevance=1.0))
    assert kept_images(kept.index_bq[0]) != wanted, "padding is no word"


def test_tokens_of_a_missing_camera_go_first():
    x, mask = sequence(1)
    mask[:, 19 + 2 : 19 + 18] = False
    _, kept = pruned(x, mask, LAYOUT, options=VisionTokens(pruning="adaptive", keep=0.5))
    assert kept_images(kept.index_bq[0]) == list(range(16))
    assert kept.of(mask).all()


def test_relevance_lies_between_none_and_one():
    x, mask = sequence()
    score = relevance(x[:, 2:18], x[:, LAYOUT.word_places], mask[:, LAYOUT.word_places])
    assert score.min() == 0
    assert score.max() == pytest.approx(1.0)


def test_changes_are_those_of_the_part_of_the_image_that_a_token_covers():
    before = torch.zeros(1, 2, 3, 8, 12)
    now = before.clone()
    now[:, 1, :, 4:, 9:] = 0.5
    changes = cell_changes(now, before, rows=2, columns=4)
    expected = torch.zeros(1, 2, 8)
    expected[0, 1, 7] = 0.5
    torch.testing.assert_close(changes, expected)


def test_a_learned_score_decides_and_is_trained_through_what_it_keeps():
    torch.manual_seed(0)
    x, mask = sequence()
    scorer = TokenScorer(WIDTH)
    options = VisionTokens(pruning="learned", keep=0.25)
    left, kept = pruned(x, mask, LAYOUT, options=options, scorer=scorer)
    assert kept.gates_bi is not None
    top = kept.gates_bi[0].topk(8).indices.sort().values.tolist()
    assert kept_images(kept.index_bq[0]) == top
    assert torch.equal(left, kept.of(x)), "forwards the gates change nothing"
    left.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in scorer.parameters())


def test_sparsity_pulls_the_chances_to_the_share():
    gates = torch.full((2, 6), 0.9, requires_grad=True)
    sparsity(gates, keep=0.25).backward()
    assert gates.grad is not None
    assert (gates.grad > 0).all()
    assert sparsity(torch.full((2, 6), 0.25), keep=0.25) == 0
