"""Qwen2-VL, 2.5 and 3: images of any aspect ratio, positions in three dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastvla_core.models.backbones.vlm.backend import EncodedImages, TransformersBackbone
from fastvla_core.models.backbones.vlm.images import CLIP_MEAN, CLIP_STD, ImageRecipe, adjusted
from fastvla_core.models.backbones.vlm.interface import ImageTokens, Part, PrefixEmbeds
from fastvla_core.models.backbones.vlm.text import Prompt, PromptTokens


class Qwen2VL(TransformersBackbone):
    """Source: arXiv:2409.12191."""

    network_class = "Qwen2VLForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        image_open="<|vision_start|>",
        image_token="<|image_pad|>",
        image_close="<|vision_end|>",
        after="{text}<|im_end|>\n<|im_start|>assistant\n",
        answer_close="<|im_end|>",
    )
    part_names: ClassVar[Mapping[Part, tuple[str, ...]]] = {
        "vision": ("model.visual.patch_embed", "model.visual.blocks"),
        "projector": ("model.visual.merger",),
        "language": ("model.language_model", "lm_head"),
    }

    def image_recipe(self, settings: Mapping[str, Any]) -> ImageRecipe:
        """Sizes within the bounds that the checkpoint gives, in multiples of merged patches."""
        vision = self.network.config.vision_config
        recipe = ImageRecipe(
            fit="multiple",
            mean=CLIP_MEAN,
            std=CLIP_STD,
            factor=vision.patch_size * vision.spatial_merge_size,
            min_pixels=56 * 56,
            max_pixels=14 * 14 * 4 * 1280,
        )
        return adjusted(recipe, settings, source=self.folder)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """One token per square of merged patches."""
        return height // self.recipe.factor, width // self.recipe.factor

    def encode_pixels(self, pixels_m3hw: Tensor) -> EncodedImages:
        """See `TransformersBackbone.encode_pixels`."""
        vision = self.network.config.vision_config
        output = self.network.model.get_image_features(
            _patches(
                pixels_m3hw,
                patch=vision.patch_size,
                merge=vision.spatial_merge_size,
                frames=vision.temporal_patch_size,
            ),
            self._patch_grid(self.token_grid(*pixels_m3hw.shape[-2:]), len(pixels_m3hw)),
            return_dict=True,
        )
        deepstack = getattr(output, "deepstack_features", None) or ()
        return EncodedImages(
            torch.stack(output.pooler_output), tuple(torch.stack(part) for part in deepstack)
        )

    def positions(
        self, tokens: PromptTokens, visible_bp: Tensor, images: ImageTokens | None
    ) -> Tensor:
        """Time, row and column of each token: [3, b, p]."""
        count = 0 if images is None else images.mask_bc.numel()
        positions_3bp, _ = self.network.model.get_rope_index(
            tokens.ids_bp.to(visible_bp.device),
            mm_token_type_ids=tokens.image_bp.int().to(visible_bp.device),
            image_grid_thw=None if images is None else self._patch_grid(images.grid, count),
            attention_mask=visible_bp.long(),
        )
        return positions_3bp

    def generation_inputs(self, tokens: PromptTokens, images: ImageTokens | None) -> dict[str, Any]:
        """The grids that positions are computed from."""
        if images is None:
            return {}
        return {
            "image_grid_thw": self._patch_grid(images.grid, images.mask_bc.numel()),
            "mm_token_type_ids": tokens.image_bp.int().to(self.device),
        }

    def pooled(self, tokens_mnd: Tensor) -> Any:
        """One tensor per image."""
        return tuple(tokens_mnd)

    def rotary_positions(self, positions_bt: Tensor) -> Tensor:
        """Behind the prefix there are words and actions: the three positions are one."""
        return positions_bt.expand(3, *positions_bt.shape)

    def _patch_grid(self, tokens: tuple[int, int], count: int) -> Tensor:
        merge = self.network.config.vision_config.spatial_merge_size
        rows, columns = tokens
        return torch.tensor([[1, rows * merge, columns * merge]] * count, device=self.device)


def _patches(pixels_m3hw: Tensor, *, patch: int, merge: int, frames: int) -> Tensor:
    """Flat patches in the order of the merged squares; a still image is repeated as frames."""
    m, colours, height, width = pixels_m3hw.shape
    rows, columns = height // patch // merge, width // patch // merge
    grid = pixels_m3hw.view(m, colours, rows, merge, patch, columns, merge, patch)
    # image, square row and column, patch row and column within it, colour, pixel row and column
    ordered = grid.permute(0, 2, 5, 3, 6, 1, 4, 7)
    repeated = ordered[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    return repeated.reshape(m * rows * columns * merge**2, colours * frames * patch**2)


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: a vision tower with windows. Source: arXiv:2502.13923."""

    network_class = "Qwen2_5_VLForConditionalGeneration"


class Qwen3VL(Qwen2VL):
    """Qwen3-VL: features of several vision layers join the first language layers."""

    network_class = "Qwen3VLForConditionalGeneration"
    prompt = Prompt(
        before="<|im_start|>user\n",
        image_open="<|vision_start|>",
        image_token="<|image_pad|>",
        image_close="<|vision_end|>",
        after="{text}<|im_end|>\n<|im_start|>assistant\n",
        answer_close="<|im_end|>",
    )
    part_names: ClassVar[Mapping[Part, tuple[str, ...]]] = {
        "vision": (
            "model.visual.patch_embed",
            "model.visual.pos_embed",
            "model.visual.blocks",
        ),
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language": ("model.language_model", "lm_head"),
    }

    def image_recipe(self, settings: Mapping[str, Any]) -> ImageRecipe:
        """Other colours and bounds than Qwen2-VL's, where the checkpoint does not say."""
        defaults = {
            "image_mean": (0.5, 0.5, 0.5),
            "image_std": (0.5, 0.5, 0.5),
            "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096},
        }
        return super().image_recipe({**defaults, **settings})

    def run_language(self, prefix: PrefixEmbeds, **asked: Any) -> Any:
        """The network's own forward takes such features only together with pixels."""
        visual = torch.zeros_like(prefix.mask_bp)
        for span in prefix.image_spans:
            visual[:, span] = True
        features = [part.flatten(0, 2) for part in prefix.deepstack]
        return self.language_model(
            inputs_embeds=prefix.embeds_bpd,
            attention_mask=prefix.mask_bp.long(),
            position_ids=prefix.position_ids,
            visual_pos_masks=visual if features else None,
            deepstack_visual_embeds=features or None,
            **asked,
        )

    def image_outputs(self, images: ImageTokens) -> Any:
        """With the features for the first language layers."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import (
            BaseModelOutputWithDeepstackFeatures,
        )

        # Declared as tensors, used as one tensor per image.
        features: Any = [tuple(part.flatten(0, 1)) for part in images.deepstack]
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=self.pooled(images.tokens_bcnd.flatten(0, 1)),
            deepstack_features=features,
        )
