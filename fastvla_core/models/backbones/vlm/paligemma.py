"""PaliGemma 1 and 2: the whole prompt attends both ways, positions count from 1."""

from __future__ import annotations

from typing import Any

from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.interface import ImageTokens, PrefixEmbeds
from fastvla_core.models.backbones.vlm.text import Prompt, PromptTokens


class PaliGemma(SquareImages):
    """Source: arXiv:2407.07726, arXiv:2412.03555."""

    network_class = "PaliGemmaForConditionalGeneration"
    prompt = Prompt(
        before="",
        image_open="",
        image_token="<image>",
        image_close="",
        after="<bos>{text}\n",
        answer_close="<eos>",
    )
    first_position = 1

    def language_inputs(self, prefix: PrefixEmbeds) -> dict[str, Any]:
        """What is said attends backwards only."""
        return {"token_type_ids": prefix.answer_bp.long()}

    def generation_inputs(self, tokens: PromptTokens, images: ImageTokens | None) -> dict[str, Any]:
        """The prompt attends both ways."""
        return {"token_type_ids": tokens.answer_bp.long().to(self.device)}
