"""Where the visual tokens and the words stand in a prefix, and which of the tokens were kept.

Shapes: b batch, c cameras, n tokens of one image, i = c * n visual tokens, l words, p prefix
tokens, q tokens that are kept, w width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixLayout:
    """[markers, tokens of the image, markers] of each camera, then the words, then anything else.

    Attributes:
        cameras: Images c.
        rows, columns: Grid of an image's tokens.
        words: Length of the instruction, padding included.
        before, after: Markers around each image.
    """

    cameras: int
    rows: int
    columns: int
    words: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> int:
        """Visual tokens i of all cameras."""
        return self.cameras * self.rows * self.columns

    @property
    def word_places(self) -> slice:
        """Where the words are."""
        first = self.tokens + self.cameras * (self.before + self.after)
        return slice(first, first + self.words)

    def image_places(self, device: torch.device) -> Tensor:
        """Where the visual tokens are, int64 [i], rising."""
        count = self.rows * self.columns
        own = torch.arange(count, device=device) + self.before
        first = torch.arange(self.cameras, device=device) * (self.before + count + self.after)
        return (first[:, None] + own).flatten()


@dataclass(frozen=True, slots=True)
class Kept:
    """Which tokens of a prefix are left.

    Attributes:
        index_bq: Their places in the whole prefix, rising: the positions that they keep.
        mask_bp: True where a token of the whole prefix is real.
        gates_bi: Learned chance of each visual token to be kept, with gradient; else None.
    """

    index_bq: Tensor
    mask_bp: Tensor
    gates_bi: Tensor | None = None

    def of(self, values_bp: Tensor) -> Tensor:
        """The kept tokens' part of [b, p] or [b, p, w]."""
        index = self.index_bq
        if values_bp.ndim == 3:
            index = index[..., None].expand(-1, -1, values_bp.shape[-1])
        return values_bp.gather(1, index)

    def spread(self, values_bq: Tensor, *, missing: Tensor) -> Tensor:
        """Values of the kept tokens [b, q] at their places among `missing`, [b, p]."""
        return missing.scatter(1, self.index_bq, values_bq)
