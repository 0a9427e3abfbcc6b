"""Images to the few points that they are described by.

Shapes: b images, c channels, h and w cells of the feature map, k points.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.models.backbones.resnet import ResNet, group_norm
from fastvla_core.models.policies.diffusion.config import DiffusionConfig
from fastvla_core.models.policies.visuomotor.images import resized


class SpatialSoftmax(nn.Module):
    """Where in the image each of a few learned features is, in [-1, 1] along both axes.

    Source: Deep spatial autoencoders, arXiv:1509.06113.
    """

    grid: Tensor

    def __init__(self, channels: int, *, size: tuple[int, int], points: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, points, 1)
        rows, columns = (np.linspace(-1.0, 1.0, count) for count in size)
        grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        self.register_buffer("grid", torch.from_numpy(grid).float())

    def forward(self, map_bchw: Tensor) -> Tensor:
        """[b, k, 2], column first."""
        attention = self.features(map_bchw).flatten(2).softmax(dim=-1)
        # Not as a product of matrices: a place rounded to bfloat16 is off by millimetres.
        return (attention[..., None].float() * self.grid.float()).sum(dim=2)


class ImageEncoder(nn.Module):
    """One camera's images to 2 k values."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        norm = group_norm if config.use_group_norm else nn.BatchNorm2d
        values = 2 * config.spatial_softmax_num_keypoints
        self.config = config
        self.backbone = ResNet(config.backbone, norm=norm)
        self.pool = SpatialSoftmax(
            config.backbone.channels,
            size=config.backbone.map_size(*config.seen_size),
            points=config.spatial_softmax_num_keypoints,
        )
        self.out = nn.Linear(values, values)

    def forward(self, images_b3hw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[b, 2 k].

        Args:
            generator: Cut the images anywhere, one place for all of them; None cuts the middle.
        """
        seen = self._cut(images_b3hw, generator).to(self.out.weight.dtype)
        points = self.pool(self.backbone(seen)).flatten(1)
        return functional.relu(self.out(points.to(seen.dtype)))

    def _cut(self, images_b3hw: Tensor, generator: torch.Generator | None) -> Tensor:
        config = self.config
        if config.resize_shape is not None:
            images_b3hw = resized(images_b3hw, config.resize_shape)
        if config.crop_shape is None:
            return images_b3hw
        height, width = config.crop_shape
        room = images_b3hw.shape[-2] - height, images_b3hw.shape[-1] - width
        if generator is None or not config.crop_is_random:
            top, left = (round(extra / 2) for extra in room)
        else:
            top, left = (_draw(extra + 1, generator) for extra in room)
        return images_b3hw[..., top : top + height, left : left + width]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device=generator.device))
