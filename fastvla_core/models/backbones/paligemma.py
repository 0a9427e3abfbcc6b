"""PaliGemma as the pi policies use it: SigLIP, one projection, Gemma.

Shapes: b batch, c cameras, n tokens of one image, w width of Gemma.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fastvla_core.layers.linear import linear
from fastvla_core.models.backbones.decoder import GEMMA, Decoder, DecoderSize
from fastvla_core.models.backbones.siglip import Siglip, SiglipSize


@dataclass(frozen=True, slots=True, kw_only=True)
class PaliGemmaSize:
    """Sizes of a PaliGemma."""

    vision: SiglipSize
    text: DecoderSize
    vocab_size: int


class PaliGemma(nn.Module):
    """Vision tower, projector and language model; the head is the token embedding.

    Source: Beyer et al., arXiv:2407.07726.
    """

    def __init__(self, size: PaliGemmaSize) -> None:
        super().__init__()
        self.vision = Siglip(size.vision)
        self.projector = linear(size.vision.width, size.text.width, bias=True)
        self.text = Decoder(size.text, style=GEMMA, vocab_size=size.vocab_size)

    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w]."""
        tokens = self.projector(self.vision(images_bc3hw.flatten(0, 1)))
        return tokens.unflatten(0, images_bc3hw.shape[:2])
