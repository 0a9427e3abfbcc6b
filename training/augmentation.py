"""Pictures as another camera, light or lens would have taken them; on the training path only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError

# Of the smallest side: a blur that a lens out of focus gives, at any resolution.
_BLUR_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """By how much pictures are changed; each sample and camera draws for itself.

    Attributes:
        crop: Largest share of a side that is cut off; the rest is scaled to the old size.
        brightness, contrast, saturation: Largest relative change.
        blur: Chance that a picture is blurred.

    Raises:
        DatasetError: a number is out of its range.
    """

    crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, most = getattr(self, item.name), 0.5 if item.name == "crop" else 1.0
            if not 0.0 <= value <= most:
                raise DatasetError(
                    f"augmentation.{item.name} is {value}",
                    mend=f"give at least 0 and at most {most:g}",
                )


NO_AUGMENTATION = Augmentation()


def augment(
    images: Mapping[str, NDArray[np.uint8]],
    how: Augmentation,
    random: np.random.Generator,
    *,
    rows: NDArray[np.int64],
    batch_size: int,
) -> dict[str, NDArray[np.uint8]]:
    """Changed copies of uint8 [R, H, W, 3] by camera; equal for an equal `random`.

    Args:
        rows: Which samples of the batch these are, [R]; the others are drawn for all the same, so
            that several processes change a batch as one would.
    """
    changed = {}
    for name, batch in images.items():
        # Drawn at once and always: one setting does not move the draws of the others.
        draws = random.uniform(-1.0, 1.0, (batch_size, 8))[rows]
        changed[name] = np.stack([_one(image, how, draw) for image, draw in zip(batch, draws)])
    return changed


def _one(
    image: NDArray[np.uint8], how: Augmentation, draw: NDArray[np.float64]
) -> NDArray[np.uint8]:
    if how.crop:
        image = _cropped(image, how.crop, draw[:3])
    if how.brightness or how.contrast:
        image = _relit(image, gain=1 + how.contrast * draw[3], light=how.brightness * draw[4])
    if how.saturation:
        image = _saturated(image, 1 + how.saturation * draw[5])
    if how.blur and (draw[6] + 1) / 2 < how.blur:
        sigma = max(0.3, _BLUR_SHARE * min(image.shape[:2]) * (0.5 + abs(draw[7])))
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    return image


def _cropped(image: NDArray[np.uint8], most: float, draw: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    kept = 1 - most * (draw[0] + 1) / 2
    rows, columns = max(1, round(height * kept)), max(1, round(width * kept))
    top = round((height - rows) * (draw[1] + 1) / 2)
    left = round((width - columns) * (draw[2] + 1) / 2)
    part = image[top : top + rows, left : left + columns]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _relit(image: NDArray[np.uint8], *, gain: float, light: float) -> NDArray[np.uint8]:
    """Contrast about the middle grey, then brightness; one table for all pixels."""
    values = (np.arange(256) - 127.5) * gain + 127.5 * (1 + 2 * light)
    return np.asarray(cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8)), np.uint8)


def _saturated(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, 0), np.uint8)
