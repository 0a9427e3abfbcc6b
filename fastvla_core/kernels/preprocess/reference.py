"""Plain torch: resize, pad, normalise, cut into patches. Defines the operator; the CPU path.

Shape suffixes: c colour, h height, w width, y and x patch grid, p pixel within a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import CHANNEL_ORDER, Encoding, PreprocessSpec, fit


def preprocess(
    images: Sequence[Tensor], encodings: Sequence[Encoding], spec: PreprocessSpec
) -> Tensor:
    """Return [*lead, cameras, *spec.image_shape]; see `fastvla_core.kernels.preprocess`."""
    lead = images[0].shape[:-3]
    shape = (*lead, len(images), *spec.image_shape)
    result = torch.empty(shape, dtype=torch.float32, device=images[0].device)
    for camera, (image, encoding) in enumerate(zip(images, encodings)):
        _store(_place(_planes(image, encoding), spec), result.select(len(lead), camera), spec)
    return result.div_(127.5).sub_(1.0).to(spec.dtype)


def _planes(image: Tensor, encoding: Encoding) -> Tensor:
    """View [..., H, W, C] as red, green and blue planes [..., 3, H, W]."""
    planes_chw = image.movedim(-1, -3)
    if encoding == "mono8":
        return planes_chw.expand(*planes_chw.shape[:-3], 3, *planes_chw.shape[-2:])
    return planes_chw.flip(-3) if CHANNEL_ORDER[encoding] == (2, -1) else planes_chw


def _place(planes_chw: Tensor, spec: PreprocessSpec) -> Tensor:
    """Resize to fit, then pad with black; what has the right size already is passed through."""
    height, width = planes_chw.shape[-2:]
    area = fit(height, width, spec)
    if (area.height, area.width) != (height, width):
        batch = planes_chw.reshape(-1, 3, height, width).float()
        batch = F.interpolate(batch, (area.height, area.width), mode="bilinear")
        planes_chw = batch.view(*planes_chw.shape[:-3], 3, area.height, area.width)
    if (area.height, area.width) == (spec.height, spec.width):
        return planes_chw
    right = spec.width - area.width - area.left
    bottom = spec.height - area.height - area.top
    return F.pad(planes_chw, (area.left, right, area.top, bottom))


def _store(planes_chw: Tensor, slot: Tensor, spec: PreprocessSpec) -> None:
    """Copy planes into one camera's part of the result, as planes or as patches."""
    if spec.patch is None:
        slot.copy_(planes_chw)
        return
    rows, columns = spec.height // spec.patch, spec.width // spec.patch
    grid_cypxp = planes_chw.unflatten(-2, (rows, -1)).unflatten(-1, (columns, -1))
    grid_yxcpp = grid_cypxp.movedim((-4, -2), (-5, -4))
    slot.view(*slot.shape[:-2], *grid_yxcpp.shape[-5:]).copy_(grid_yxcpp)
