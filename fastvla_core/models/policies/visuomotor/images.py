"""Cameras of any size to normalised images of the sizes that the policy was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastvla_core.errors import ObservationError
from fastvla_core.models.lerobot.transition import Transition


def image_name(index: int) -> str:
    """What the images of a camera are called in a batch; cameras may differ in size."""
    return f"image_{index}"


def resized(images_b3hw: Tensor, size: tuple[int, int]) -> Tensor:
    """Images stretched to a height and width, smoothed where they become smaller."""
    if images_b3hw.shape[-2:] == size:
        return images_b3hw
    return functional.interpolate(
        images_b3hw, size, mode="bilinear", align_corners=False, antialias=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraImages:
    """Every camera's image in its own size; one that is missing is its mean colour.

    Attributes:
        sizes: Camera feature keys in the policy's order, to height and width.
    """

    sizes: Mapping[str, tuple[int, int]]

    def __call__(self, transition: Transition, *, device: torch.device) -> dict[str, Tensor]:
        """`image_0`, `image_1` and so on, each [b, 3, height, width].

        Raises:
            ObservationError: there is no image of any of the cameras.
        """
        present = [key for key in self.sizes if key in transition.images]
        if not present:
            raise ObservationError(
                f"no image of any camera of the policy ({', '.join(self.sizes)})",
                mend="start a camera, or map the robot's cameras to the policy's",
            )
        count = len(transition.images[present[0]])
        found: dict[str, Tensor] = {}
        for index, (key, size) in enumerate(self.sizes.items()):
            image = torch.zeros(count, 3, *size, device=device)
            if key in transition.images:
                image = self._shown(transition, key, size, device)
            found[image_name(index)] = image
        return found

    def _shown(
        self, transition: Transition, key: str, size: tuple[int, int], device: torch.device
    ) -> Tensor:
        given = transition.images[key].to(device)
        # Those without statistics come as they are.
        pixels = given if given.is_floating_point() else given.float() / 255
        image = resized(pixels.movedim(-1, 1), size)
        mask = transition.image_masks.get(key)
        if mask is None:
            return image.contiguous()
        return torch.where(mask.to(device)[:, None, None, None], image, 0.0)
