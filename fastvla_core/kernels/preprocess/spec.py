"""What a policy wants its images to be, and where a resized image lands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fastvla_core.errors import KernelInputError

Encoding = Literal["rgb8", "bgr8", "mono8"]
Placement = Literal["center", "left_top"]

# Source channel of red, and the step to green and to blue.
CHANNEL_ORDER: dict[Encoding, tuple[int, int]] = {"rgb8": (0, 1), "bgr8": (2, -1), "mono8": (0, 0)}
_CHANNELS: dict[Encoding, int] = {"rgb8": 3, "bgr8": 3, "mono8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """The images that a policy takes.

    Attributes:
        height, width: Size [pixels].
        placement: Where padding goes when the aspect ratio differs: "center" pads both sides, an
            odd rest right and bottom (pi0); "left_top" pads left and top only (SmolVLA).
        patch: Edge of square patches, or None for whole planes.
        dtype: Type of the result; the arithmetic is float32.
    Raises:
        KernelInputError: A size is not positive, or `patch` does not divide height and width.
    """

    height: int
    width: int
    placement: Placement = "center"
    patch: int | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, 1 if self.patch is None else self.patch)
        if min(sizes) < 1:
            raise KernelInputError(
                f"preprocess: image size {self.height}x{self.width}, patch {self.patch}",
                mend="give positive sizes",
            )
        if self.height % sizes[2] or self.width % sizes[2]:
            raise KernelInputError(
                f"preprocess: patches of {self.patch} do not tile {self.height}x{self.width}",
                mend="choose an image size that is a multiple of the patch size",
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one result: (3, H, W), or (patches, 3 * patch * patch)."""
        if self.patch is None:
            return (3, self.height, self.width)
        area = self.patch * self.patch
        return (self.height * self.width // area, 3 * area)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Rectangle of the result that the resized image covers [pixels]."""

    height: int
    width: int
    top: int
    left: int


def fit(height: int, width: int, spec: PreprocessSpec) -> Fit:
    """Return where an image of a size lands; the aspect ratio is kept, sizes are cut to integers.

    Raises:
        KernelInputError: The image is so long that its short side would vanish.
    """
    ratio = max(width / spec.width, height / spec.height)
    new_height, new_width = int(height / ratio), int(width / ratio)
    if not new_height or not new_width:
        raise KernelInputError(
            f"preprocess: a {height}x{width} image vanishes in {spec.height}x{spec.width}",
            mend="crop the image nearer to the policy's aspect ratio",
        )
    top, left = spec.height - new_height, spec.width - new_width
    if spec.placement == "center":
        top, left = top // 2, left // 2
    return Fit(height=new_height, width=new_width, top=top, left=left)


def check_images(images: Sequence[Tensor], encodings: Sequence[Encoding]) -> tuple[int, ...]:
    """Return the shape in front of [H, W, C], () or (B,), that all images share.

    Raises:
        KernelInputError: No image, or one with a wrong type, rank, channel count, batch or device.
    """
    if not images or len(images) != len(encodings):
        raise KernelInputError(
            f"preprocess: {len(images)} images, {len(encodings)} encodings",
            mend="give at least one image, and one encoding for all or one for each",
        )
    lead, device = images[0].shape[:-3], images[0].device
    for number, (image, encoding) in enumerate(zip(images, encodings)):
        channels = _CHANNELS.get(encoding)
        if channels is None:
            raise KernelInputError(
                f"preprocess: image {number} has encoding {encoding!r}",
                mend=f"convert it to one of {', '.join(_CHANNELS)}",
            )
        fits = image.ndim in (3, 4) and image.shape[-1] == channels and image.shape[:-3] == lead
        if image.dtype != torch.uint8 or not fits or not image.numel() or image.device != device:
            raise KernelInputError(
                f"preprocess: image {number} ({encoding}) is {image.dtype} "
                f"{tuple(image.shape)} on {image.device}",
                mend=f"give uint8 [H, W, {channels}] or [B, H, W, {channels}], with one B and one "
                "device for all images",
            )
    return tuple(lead)
