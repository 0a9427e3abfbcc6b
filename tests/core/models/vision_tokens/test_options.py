"""Options that cannot be are refused; what is not asked for is left to the checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from fastvla_core.errors import PolicyError
from fastvla_core.models.vision_tokens.options import (
    KEEP_RATIOS,
    ScoreWeights,
    VisionTokens,
    chosen_tokens,
)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pruning": "random"}, "cannot be pruned by 'random'"),
        ({"pruning": "adaptive", "keep": 0.3}, "cannot keep 0.3"),
        ({"pruning": "pool", "keep": 0.375}, "cannot keep 0.375"),
        ({"weights": ScoreWeights(relevance=-1.0)}, "weights of the scores"),
        ({"weights": ScoreWeights(relevance=0, attention=0, change=0)}, "weights of the scores"),
    ],
)
def test_values_that_cannot_be_are_refused(fields: dict[str, Any], reason: str):
    with pytest.raises(PolicyError, match=reason):
        VisionTokens(**fields)


def test_nothing_is_on_by_default():
    assert not VisionTokens().active
    assert VisionTokens(pruning="uniform").active
    assert not VisionTokens(pruning="uniform").remembers
    assert VisionTokens(camera_reuse=0.0).remembers


def test_without_an_option_the_checkpoint_decides():
    plain = {"keep": 0.5, "camera_reuse": -1.0, "prefix_reuse": False}
    assert chosen_tokens("stored", **plain) is None
    assert chosen_tokens("none", **plain) == VisionTokens()
    only_reuse = chosen_tokens("stored", **{**plain, "camera_reuse": 0.0})
    assert only_reuse == VisionTokens(camera_reuse=0.0)


def test_the_share_is_one_of_a_few_so_that_every_shape_can_be_prepared():
    assert all(VisionTokens(pruning="adaptive", keep=keep).keep == keep for keep in KEEP_RATIOS)
    assert {0.25, 0.375, 0.5} <= set(KEEP_RATIOS)
