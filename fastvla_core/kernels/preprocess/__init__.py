"""Camera images to what a vision tower takes: resize, pad, [-1, 1], optionally patches.

Images on the CPU take the reference, on CUDA one Triton launch serves all cameras. See README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import reference
from .spec import Encoding, Placement, PreprocessSpec, check_images

__all__ = ["Encoding", "Placement", "PreprocessSpec", "preprocess"]


def preprocess(
    images: Sequence[Tensor],
    spec: PreprocessSpec,
    *,
    encodings: Encoding | Sequence[Encoding] = "rgb8",
) -> Tensor:
    """Resize with the aspect ratio kept, pad with black, and scale to [-1, 1].

    Args:
        images: One per camera, uint8 [H, W, C] or [B, H, W, C], C = 3 (1 for mono8), of any size
            and any strides; padded rows are fine. All on one device.
        spec: Size, padding, patches and type of the result.
        encodings: Channel order, one for all cameras or one for each.
    Returns:
        [cameras, 3, H, W] or [B, cameras, 3, H, W]; with patches [..., cameras, N, 3 * p * p], row
        by row and each in the order of a convolution's weight. Padding is -1. Bilinear with
        half-pixel centres and no antialiasing; an image of the right size is not resampled.
    Raises:
        KernelInputError: An image has a wrong type, shape, batch or device, or vanishes.
    Source: `resize_with_pad` of openpi, whose checkpoints expect it.
    """
    orders: Sequence[Encoding] = (
        (encodings,) * len(images) if isinstance(encodings, str) else encodings
    )
    check_images(images, orders)
    if images[0].is_cuda:
        from . import triton

        return triton.preprocess(images, orders, spec)
    return reference.preprocess(images, orders, spec)
