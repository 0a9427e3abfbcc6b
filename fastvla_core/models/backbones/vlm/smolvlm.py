"""SmolVLM, SmolVLM2 and Idefics3: one global view per camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvla_core.models.backbones.vlm.backend import EncodedImages
from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.interface import Part
from fastvla_core.models.backbones.vlm.text import Prompt


class SmolVLM(SquareImages):
    """Source: arXiv:2504.05299."""

    network_class = "SmolVLMForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>User:",
        image_open="<fake_token_around_image><global-img>",
        image_token="<image>",
        image_close="<fake_token_around_image>",
        after="{text}<end_of_utterance>\nAssistant:",
        answer_open=" ",
        answer_close="<end_of_utterance>",
    )
    part_names: ClassVar[Mapping[Part, tuple[str, ...]]] = {
        "vision": ("model.vision_model",),
        "projector": ("model.connector",),
        "language": ("model.text_model", "lm_head"),
    }

    def tokens_per_image(self) -> int:
        """Neighbouring patches are folded into one token."""
        return self.network.model.image_seq_len

    def encode_pixels(self, pixels_m3hw: Tensor) -> EncodedImages:
        """Tower and projector; the network's own method drops images that are all zero."""
        model = self.network.model
        edge = self.recipe.height // self.network.config.vision_config.patch_size
        every = torch.ones(len(pixels_m3hw), edge, edge, dtype=torch.bool, device=self.device)
        seen = model.vision_model(pixel_values=pixels_m3hw, patch_attention_mask=every)
        return EncodedImages(model.connector(seen.last_hidden_state))

    @property
    def language_model(self) -> Any:
        """See `NetworkParts.language_model`."""
        return self.network.model.text_model


class Idefics3(SmolVLM):
    """Source: arXiv:2408.12637."""

    network_class = "Idefics3ForConditionalGeneration"

    def __init__(self, network: Any, *, folder: Path, origin: str) -> None:
        super().__init__(network, folder=folder, origin=origin)
        # SmolVLM's first models are of this type too; their tokens tell them apart.
        if not self.tokenizer.has("<|im_start|>"):
            self.prompt = replace(self.prompt, before="<|begin_of_text|>User:")
