"""Reasons to keep a visual token, each from 0 (none) to 1.

Shapes: b batch, c cameras, i visual tokens of all cameras, l words, w width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.models.vision_tokens.options import ScoreWeights

# Of the pixels' range of 2, about 13 grey levels: an arm that passes is far above, noise below.
SATURATED_CHANGE = 0.1
_KEY_WIDTH = 32


def relevance(images_biw: Tensor, words_blw: Tensor, word_mask_bl: Tensor) -> Tensor:
    """Likeness of each visual token to the word nearest to it, [b, i].

    The cosine of the embeddings as they enter the prefix, stretched to 0 to 1 over the tokens.
    """
    images = functional.normalize(images_biw.float(), dim=-1)
    words = functional.normalize(words_blw.float(), dim=-1)
    cosine_bil = images @ words.mT
    nearest = cosine_bil.masked_fill(~word_mask_bl[:, None], -1.0).amax(dim=-1)
    low, high = nearest.amin(dim=1, keepdim=True), nearest.amax(dim=1, keepdim=True)
    return (nearest - low) / (high - low).clamp_min(1e-6)


def cell_changes(images_bc3hw: Tensor, before_bc3hw: Tensor, *, rows: int, columns: int) -> Tensor:
    """Mean absolute difference of the pixels in the part of the image of each token, [b, c, n]."""
    difference = (images_bc3hw - before_bc3hw).abs().float().mean(dim=2)
    return functional.adaptive_avg_pool2d(difference, (rows, columns)).flatten(2)


def saturated_change(changes_bcn: Tensor) -> Tensor:
    """Changes as a score, [b, i]."""
    return (changes_bcn / SATURATED_CHANGE).clamp_max(1.0).flatten(1)


def combined(
    weights: ScoreWeights,
    *,
    relevance_bi: Tensor,
    attention_bi: Tensor | None,
    change_bi: Tensor | None,
) -> Tensor:
    """The weighted sum of what is known, [b, i].

    Args:
        attention_bi: Attention of the previous chunk, of any scale; None before there is one.
        change_bi: From `saturated_change`; None before there is an image to compare with.
    """
    total = weights.relevance * relevance_bi
    if attention_bi is not None:
        top = attention_bi.amax(dim=1, keepdim=True).clamp_min(1e-12)
        total = total + weights.attention * attention_bi / top
    if change_bi is not None:
        total = total + weights.change * change_bi
    return total


class TokenScorer(nn.Module):
    """A learned score: how well a visual token answers the instruction, plus a bias of its own.

    Args:
        width: Of the prefix.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, _KEY_WIDTH)
        self.query = nn.Linear(width, _KEY_WIDTH)
        self.bias = nn.Linear(width, 1)

    def forward(self, images_biw: Tensor, words_blw: Tensor, word_mask_bl: Tensor) -> Tensor:
        """Scores [b, i], of which the sigmoid is the chance to be kept."""
        # What scores is trained by its gates alone; the features are others' matter.
        images = functional.layer_norm(images_biw.detach(), images_biw.shape[-1:])
        real_bl1 = word_mask_bl[..., None].to(words_blw.dtype)
        words = (words_blw.detach() * real_bl1).sum(dim=1) / real_bl1.sum(dim=1).clamp_min(1)
        query_bk1 = self.query(functional.layer_norm(words, words.shape[-1:]))[..., None]
        match_bi = (self.key(images) @ query_bk1)[..., 0] / _KEY_WIDTH**0.5
        return (match_bi + self.bias(images)[..., 0]).float()


def straight_through(gates: Tensor) -> Tensor:
    """Exactly 1 forwards, the gradient of `gates` backwards.

    Source: Bengio et al., arXiv:1308.3432.
    """
    return 1.0 + (gates - gates.detach())


def sparsity(gates_bi: Tensor, *, keep: float) -> Tensor:
    """Squared distance of the mean chance to be kept from the share that is kept."""
    return (gates_bi.mean(dim=1) - keep).square().mean()
