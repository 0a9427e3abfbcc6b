"""LLaVA 1.5 and LLaVA-OneVision: one view per camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fastvla_core.models.backbones.vlm.backend import EncodedImages
from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.images import CLIP_MEAN, CLIP_STD
from fastvla_core.models.backbones.vlm.interface import Part
from fastvla_core.models.backbones.vlm.text import Prompt


class Llava(SquareImages):
    """LLaVA 1.5. Source: arXiv:2310.03744."""

    network_class = "LlavaForConditionalGeneration"
    prompt = Prompt(
        before="<s>USER: ",
        image_open="",
        image_token="<image>",
        image_close="\n",
        after="{text} ASSISTANT:",
        answer_open=" ",
        answer_close="</s>",
    )
    fit = "crop"
    mean, std = CLIP_MEAN, CLIP_STD

    @property
    def extra_tokens(self) -> int:
        """The class token, where the projector sees it."""
        return int(self.network.config.vision_feature_select_strategy == "full")

    def pooled(self, tokens_mnd: Tensor) -> tuple[Tensor, ...]:
        """One tensor per image."""
        return tuple(tokens_mnd)


class LlavaOneVision(SquareImages):
    """With several cameras each is one view and a line break. Source: arXiv:2408.03326."""

    network_class = "LlavaOnevisionForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>user ",
        image_open="",
        image_token="<image>",
        image_close="",
        after="\n{text}<|im_end|><|im_start|>assistant\n",
        answer_close="<|im_end|>",
    )
    part_names: ClassVar[Mapping[Part, tuple[str, ...]]] = {
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector", "model.image_newline"),
        "language": ("model.language_model", "lm_head"),
    }
    fit = "pad"

    @property
    def extra_tokens(self) -> int:
        """The line break."""
        return 1

    def encode_pixels(self, pixels_m3hw: Tensor) -> EncodedImages:
        """See `TransformersBackbone.encode_pixels`."""
        count, size = len(pixels_m3hw), list(pixels_m3hw.shape[-2:])
        output = self.network.model.get_image_features(
            pixels_m3hw,
            image_sizes=torch.tensor([size] * count),
            # A lone image would be cut into views at several scales; cameras are many.
            batch_num_images=torch.tensor([max(count, 2)]),
            return_dict=True,
        )
        return EncodedImages(torch.stack(tuple(output.pooler_output)))

    def pooled(self, tokens_mnd: Tensor) -> tuple[Tensor, ...]:
        """One tensor per image."""
        return tuple(tokens_mnd)
