"""Families whose vision tower takes squares of one size: they differ in prompt and colours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.images import HALF, Colour, Fit, ImageRecipe, adjusted


class SquareImages(TransformersBackbone):
    """Images are brought to the square that the vision tower's positions are made for.

    Attributes:
        fit, mean, std: Where the checkpoint's image settings do not say otherwise.
    """

    fit: ClassVar[Fit] = "stretch"
    mean: ClassVar[Colour] = HALF
    std: ClassVar[Colour] = HALF

    def image_edge(self, settings: Mapping[str, Any]) -> int:
        """Edge [pixels] of the square."""
        size = self.network.config.vision_config.image_size
        return size if isinstance(size, int) else size[0]

    def tokens_per_image(self) -> int:
        """Tokens of a camera that stand for places in it."""
        patch = self.network.config.vision_config.patch_size
        patch = patch if isinstance(patch, int) else patch[0]
        return (self.recipe.height // patch) ** 2

    def image_recipe(self, settings: Mapping[str, Any]) -> ImageRecipe:
        """See `TransformersBackbone.image_recipe`."""
        edge = self.image_edge(settings)
        recipe = ImageRecipe(height=edge, width=edge, fit=self.fit, mean=self.mean, std=self.std)
        return adjusted(recipe, settings, source=self.folder)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """As many rows as columns."""
        edge = math.isqrt(self.tokens_per_image())
        return edge, edge
