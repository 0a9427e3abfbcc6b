"""Cameras of any size to the pixels that a family's vision tower was trained with.

Shapes: m images, h and w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json

Fit = Literal["stretch", "crop", "pad", "multiple"]
Colour = tuple[float, float, float]

CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colour = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)

# Pillow's numbers. Lanczos becomes bicubic, as on Transformers' GPU path.
_INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic"]] = {
    1: "bicubic",
    2: "bilinear",
    3: "bicubic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecipe:
    """How a vision tower wants its images.

    Attributes:
        height, width: Their size [pixels]; not used by "multiple".
        fit: "stretch" to the size; "crop" the middle of the shorter edge's scale; "pad" to a
            square of the mean colour first; "multiple": keep the aspect ratio, as Qwen does.
        mean, std: Of colours in [0, 1].
        factor, min_pixels, max_pixels: Of "multiple": both edges are multiples of `factor`, and
            the area is within bounds.
    """

    height: int = 0
    width: int = 0
    fit: Fit
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Colour
    std: Colour
    factor: int = 1
    min_pixels: int = 0
    max_pixels: int = 0

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a camera's image is given to the tower with."""
        if self.fit != "multiple":
            return self.height, self.width
        factor = self.factor
        rows, columns = round(height / factor), round(width / factor)
        area = rows * columns * factor**2
        # The arithmetic of Qwen2-VL's `smart_resize`, so that sizes agree to the pixel.
        if area > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows = max(1, math.floor(height / shrink / factor))
            columns = max(1, math.floor(width / shrink / factor))
        elif area < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
        return rows * factor, columns * factor

    def __call__(self, pixels_m3hw: Tensor) -> Tensor:
        """Resized and normalised, float32.

        Args:
            pixels_m3hw: uint8, or floating in [0, 1].
        """
        whole = pixels_m3hw.dtype == torch.uint8
        images = pixels_m3hw.float() if whole else pixels_m3hw.float() * 255
        images = self._fitted(images, whole=whole) / 255
        mean, std = (
            torch.tensor(colour, device=images.device).view(3, 1, 1)
            for colour in (self.mean, self.std)
        )
        return (images - mean) / std

    def _fitted(self, images: Tensor, *, whole: bool) -> Tensor:
        size = self.size_of(*images.shape[-2:])
        if self.fit == "pad":
            images = self._squared(images)
        if self.fit != "crop":
            return _resized(images, size, self.interpolation, whole=whole)
        height, width = images.shape[-2:]
        scale = max(size[0] / height, size[1] / width)
        scaled = (
            max(size[0], int(height * scale + 1e-9)),
            max(size[1], int(width * scale + 1e-9)),
        )
        images = _resized(images, scaled, self.interpolation, whole=whole)
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        return images[..., top : top + size[0], left : left + size[1]]

    def _squared(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        edge = max(height, width)
        colour = torch.tensor([int(part * 255) for part in self.mean], device=images.device)
        canvas = colour.to(images.dtype).view(1, 3, 1, 1).repeat(len(images), 1, edge, edge)
        top, left = (edge - height) // 2, (edge - width) // 2
        canvas[..., top : top + height, left : left + width] = images
        return canvas


def image_settings(folder: Path) -> dict[str, Any]:
    """What FOLDER/preprocessor_config.json (or processor_config.json) says about images."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            data = read_json(folder / name)
            return dict(data.get("image_processor", data))
    return {}


def adjusted(recipe: ImageRecipe, settings: Mapping[str, Any], *, source: Path) -> ImageRecipe:
    """The recipe with colours, interpolation and bounds as a checkpoint's settings say.

    Raises:
        CheckpointError: a setting is of no use.
    """
    try:
        return _adjusted(recipe, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source / 'preprocessor_config.json'} is not as expected: {error!r}",
            mend="copy it from the checkpoint's publisher again",
        ) from error


def _adjusted(recipe: ImageRecipe, settings: Mapping[str, Any]) -> ImageRecipe:
    changes: dict[str, Any] = {}
    if "image_mean" in settings:
        changes["mean"] = _colour(settings["image_mean"])
    if "image_std" in settings:
        changes["std"] = _colour(settings["image_std"])
    if "resample" in settings:
        changes["interpolation"] = _INTERPOLATIONS[int(settings["resample"])]
    size = settings.get("size")
    if recipe.fit == "multiple":
        bounds = size if isinstance(size, Mapping) else {}
        least = settings.get("min_pixels") or bounds.get("shortest_edge")
        most = settings.get("max_pixels") or bounds.get("longest_edge")
        changes["min_pixels"] = int(least or recipe.min_pixels)
        changes["max_pixels"] = int(most or recipe.max_pixels)
    return replace(recipe, **changes)


def square_edge(settings: Mapping[str, Any], *, default: int) -> int:
    """Edge [pixels] of the square images that a checkpoint's settings ask for."""
    for key in ("crop_size", "size"):
        size = settings.get(key)
        if isinstance(size, Mapping):
            edge = size.get("height", size.get("shortest_edge"))
            if isinstance(edge, int):
                return edge
        if isinstance(size, int):
            return size
    return default


def _colour(value: Any) -> Colour:
    red, green, blue = map(float, value)
    return red, green, blue


def _resized(images: Tensor, size: tuple[int, int], mode: str, *, whole: bool) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    images = F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
    images = images.clamp(0, 255)
    return images.round() if whole else images
