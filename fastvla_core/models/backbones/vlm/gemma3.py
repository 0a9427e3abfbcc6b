"""Gemma 3: the tokens of an image attend to each other both ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.interface import ImageTokens, PrefixEmbeds
from fastvla_core.models.backbones.vlm.text import Prompt, PromptTokens


class Gemma3(SquareImages):
    """Source: arXiv:2503.19786."""

    network_class = "Gemma3ForConditionalGeneration"
    prompt = Prompt(
        before="<bos><start_of_turn>user\n",
        image_open="\n\n<start_of_image>",
        image_token="<image_soft_token>",
        image_close="<end_of_image>\n\n",
        after="{text}<end_of_turn>\n<start_of_turn>model\n",
        answer_close="<end_of_turn>",
    )

    def tokens_per_image(self) -> int:
        """The projector pools to this many."""
        return self.network.config.mm_tokens_per_image

    def language_inputs(self, prefix: PrefixEmbeds) -> dict[str, Any]:
        """Which tokens are of an image."""
        kinds_bp: Tensor = torch.zeros_like(prefix.ids_bp)
        for span in prefix.image_spans:
            kinds_bp[:, span] = 1
        return {"token_type_ids": kinds_bp}

    def generation_inputs(self, tokens: PromptTokens, images: ImageTokens | None) -> dict[str, Any]:
        """Which tokens are of an image."""
        return {"token_type_ids": tokens.image_bp.long().to(self.device)}
