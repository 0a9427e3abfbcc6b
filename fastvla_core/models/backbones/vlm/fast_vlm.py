"""FastVLM: a convolutional tower with few tokens; needs timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.images import square_edge
from fastvla_core.models.backbones.vlm.text import Prompt

# The tower halves the image six times.
_STRIDE = 64


class FastVLM(SquareImages):
    """Source: arXiv:2412.13303."""

    network_class = "FastVlmForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        image_open="",
        image_token="<image>",
        image_close="\n",
        after="{text}<|im_end|>\n<|im_start|>assistant\n",
        answer_close="<|im_end|>",
    )
    notice = (
        "Apple's weights of FastVLM are licensed for research only: no robot in a product may use "
        "them"
    )
    fit = "pad"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def image_edge(self, settings: Mapping[str, Any]) -> int:
        """As the image settings say."""
        return square_edge(settings, default=1024)

    def tokens_per_image(self) -> int:
        """One per place of the last feature map."""
        return (self.recipe.height // _STRIDE) ** 2
