"""Leaves a fixed number of visual tokens in a prefix; those that stay keep their positions.

Nothing here depends on values in its shapes, so that a graph can be captured.

Shapes: b batch, c cameras, i visual tokens of all cameras, p prefix tokens, q tokens that are
kept, w width.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvla_core.errors import PolicyError
from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.models.vision_tokens.scores import (
    TokenScorer,
    combined,
    relevance,
    straight_through,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What is known of the visual tokens from before, each [b, i] or None.

    Attributes:
        attention_bi: How much the previous chunk looked at them.
        change_bi: How much they have changed since, 0 to 1.
    """

    attention_bi: Tensor | None = None
    change_bi: Tensor | None = None


NO_HINTS = Hints()


def pruned(
    x_bpw: Tensor,
    mask_bp: Tensor,
    layout: PrefixLayout,
    *,
    options: VisionTokens,
    hints: Hints = NO_HINTS,
    scorer: TokenScorer | None = None,
) -> tuple[Tensor, Kept]:
    """The embedded prefix [b, q, w] without the visual tokens that count least.

    Args:
        x_bpw: The whole embedded prefix.
        mask_bp: True where one of its tokens is real; tokens of a missing camera go first.
        hints: For adaptive pruning.
        scorer: For learned pruning.
    Raises:
        PolicyError: the tokens of an image cannot be pooled in the asked way.
    """
    places_i = layout.image_places(x_bpw.device)
    count = math.ceil(options.keep * layout.tokens)
    images_biw, image_mask_bi = x_bpw[:, places_i], mask_bp[:, places_i]
    gates_bi = None
    if options.pruning in ("adaptive", "learned"):
        words = x_bpw[:, layout.word_places], mask_bp[:, layout.word_places]
        if options.pruning == "learned":
            assert scorer is not None
            scores_bi = scorer(images_biw, *words)
            gates_bi = scores_bi.sigmoid()
        else:
            scores_bi = combined(
                options.weights,
                relevance_bi=relevance(images_biw, *words),
                attention_bi=hints.attention_bi,
                change_bi=hints.change_bi,
            )
        chosen_bk = _highest(scores_bi.masked_fill(~image_mask_bi, float("-inf")), count)
    else:
        if options.pruning == "pool":
            x_bpw = _pooled(x_bpw, places_i, layout, options)
        chosen_bk = _even(layout, options, x_bpw.device).expand(len(x_bpw), -1)
    kept = Kept(_with_others(places_i[chosen_bk], places_i, mask_bp), mask_bp, gates_bi)
    left_bqw = kept.of(x_bpw)
    if gates_bi is None:
        return left_bqw, kept
    gate_bp = torch.ones_like(mask_bp, dtype=gates_bi.dtype)
    gate_bp = gate_bp.index_copy(1, places_i, straight_through(gates_bi))
    return left_bqw * kept.of(gate_bp)[..., None].to(left_bqw.dtype), kept


def _highest(scores_bi: Tensor, count: int) -> Tensor:
    return scores_bi.detach().topk(count, dim=1).indices


def _with_others(kept_bk: Tensor, places_i: Tensor, mask_bp: Tensor) -> Tensor:
    """The kept visual tokens' places and those of all that is no visual token, rising, [b, q]."""
    length = mask_bp.shape[1]
    others = torch.ones(length, dtype=torch.bool, device=mask_bp.device)
    others[places_i] = False
    # The number of the others is known without looking: a mask as an index would have to look.
    count = length - len(places_i)
    others_r = others.int().argsort(descending=True, stable=True)[:count]
    return torch.cat([kept_bk, others_r.expand(len(kept_bk), -1)], dim=1).sort(dim=1).values


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _even(layout: PrefixLayout, options: VisionTokens, device: torch.device) -> Tensor:
    """Visual tokens in an even pattern, int64 [k]; for pooling the first of each square."""
    rows, columns = options.pooled
    if options.pruning == "pool":
        grid = torch.arange(layout.rows * layout.columns).view(layout.rows, layout.columns)
        own = grid[::rows, ::columns].flatten()
    else:
        order = _dithered(layout.rows, layout.columns)
        own = order[: math.ceil(options.keep * len(order))].sort().values
    first = torch.arange(layout.cameras) * layout.rows * layout.columns
    return (first[:, None] + own).flatten().to(device)


def _dithered(rows: int, columns: int) -> Tensor:
    """All cells of a grid, so ordered that the first ones always lie evenly.

    Source: Bayer's matrix of ordered dithering (1973), 4 x 4.
    """
    bayer = torch.tensor([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    y, x = torch.arange(rows)[:, None] % 4, torch.arange(columns) % 4
    return bayer[y, x].flatten().argsort(stable=True)


def _pooled(x_bpw: Tensor, places_i: Tensor, layout: PrefixLayout, options: VisionTokens) -> Tensor:
    """The prefix with the mean of each square of visual tokens in the place of its first."""
    rows, columns = options.pooled
    if layout.rows % rows or layout.columns % columns:
        raise PolicyError(
            f"{layout.rows} x {layout.columns} tokens of an image cannot be pooled by "
            f"{rows} x {columns}",
            mend="prune 'uniform' or 'adaptive' instead",
        )
    grid = x_bpw[:, places_i].unflatten(
        1, (layout.cameras, layout.rows // rows, rows, layout.columns // columns, columns)
    )
    mean = grid.mean(dim=(3, 5), keepdim=True).expand_as(grid).flatten(1, 5)
    return x_bpw.index_copy(1, places_i, mean)
