"""Cameras of any size to the images that a network sees, in the order it was trained with.

Shapes: b batch, c cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastvla_core.errors import ObservationError
from fastvla_core.kernels.preprocess import PreprocessSpec, preprocess
from fastvla_core.models.lerobot.transition import Transition


class ImageStep(Protocol):
    """Brings the cameras' images to what a network wants."""

    def __call__(self, transition: Transition, *, device: torch.device) -> dict[str, Tensor]:
        """The network's batch, as far as it is made of images."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelImages:
    """Resizes, pads and scales to [-1, 1]; puts missing cameras behind those that are there.

    Attributes:
        cameras: Feature keys in the policy's order.
        spec: Size, and where padding goes.
        missing: How many missing cameras are shown as masked images at most; the rest is left out.
    """

    cameras: tuple[str, ...]
    spec: PreprocessSpec
    missing: int

    def __call__(self, transition: Transition, *, device: torch.device) -> dict[str, Tensor]:
        """`images` [b, c, 3, height, width] and their mask `image_mask` [b, c].

        Raises:
            ObservationError: there is no image of any of the cameras.
        """
        present = [key for key in self.cameras if key in transition.images]
        if not present:
            have = ", ".join(sorted(transition.images)) or "none"
            raise ObservationError(
                f"no image of any camera of the policy ({', '.join(self.cameras)}); got: {have}",
                mend="start a camera, or map the robot's cameras to the policy's",
            )
        seen = preprocess([transition.images[key].to(device) for key in present], self.spec)
        ones = torch.ones(len(seen), dtype=torch.bool)
        masks = [transition.image_masks.get(key, ones) for key in present]
        hidden = min(len(self.cameras) - len(present), self.missing)
        # Black, as the network saw it where training had no camera.
        black = seen.new_full((len(seen), hidden, *seen.shape[2:]), -1.0)
        mask = torch.stack([*masks, *[~ones] * hidden], dim=1)
        return {"images": torch.cat([seen, black], dim=1), "image_mask": mask.to(device)}
