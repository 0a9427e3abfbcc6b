"""InternVL 3 and 3.5: one tile per camera."""

from __future__ import annotations

from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.images import IMAGENET_MEAN, IMAGENET_STD
from fastvla_core.models.backbones.vlm.text import Prompt


class InternVL(SquareImages):
    """Source: arXiv:2504.10479."""

    network_class = "InternVLForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>user\n",
        image_open="<img>",
        image_token="<IMG_CONTEXT>",
        image_close="</img>\n",
        after="{text}<|im_end|>\n<|im_start|>assistant\n",
        answer_close="<|im_end|>",
    )
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def tokens_per_image(self) -> int:
        """Neighbouring patches are folded into one token."""
        return int(super().tokens_per_image() * self.network.config.downsample_ratio**2)
