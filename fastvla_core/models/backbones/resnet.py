"""Residual networks up to their last feature map, as torchvision builds them.

Shapes: b images, c channels, h and w pixels or cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]
_BOTTLENECK_EXPANSION = 4
_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSize:
    """Sizes of a residual network.

    Attributes:
        block: Two 3x3 convolutions ("basic"), or one between two 1x1 ("bottleneck").
        widths: Channels of the four stages; of bottlenecks, those of their 3x3 convolutions.
        blocks: Blocks of the four stages.
        dilated: The last stage widens its convolutions instead of halving the map.
    """

    block: Literal["basic", "bottleneck"]
    widths: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    dilated: bool = False

    @property
    def channels(self) -> int:
        """Channels of the feature map."""
        return self.widths[-1] * (_BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the feature map of an image."""
        for _ in range(4 if self.dilated else 5):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width


_WIDTHS = (64, 128, 256, 512)
PUBLISHED: dict[str, ResNetSize] = {
    "resnet18": ResNetSize(block="basic", widths=_WIDTHS, blocks=(2, 2, 2, 2)),
    "resnet34": ResNetSize(block="basic", widths=_WIDTHS, blocks=(3, 4, 6, 3)),
    "resnet50": ResNetSize(block="bottleneck", widths=_WIDTHS, blocks=(3, 4, 6, 3)),
    "resnet101": ResNetSize(block="bottleneck", widths=_WIDTHS, blocks=(3, 4, 23, 3)),
    "resnet152": ResNetSize(block="bottleneck", widths=_WIDTHS, blocks=(3, 8, 36, 3)),
}


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation by statistics and weights that training does not change."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """The same shape, normalised per channel."""
        # As scale and shift, which is how torchvision rounds: deep networks magnify the difference.
        scale = self.weight * (self.running_var + _EPS).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x_bchw * scale[:, None, None] + shift[:, None, None]


def group_norm(channels: int) -> nn.Module:
    """Groups of 16 channels, which Diffusion Policy puts in the place of batch normalisation.

    Source: Diffusion Policy, arXiv:2303.04137.
    """
    return nn.GroupNorm(channels // 16, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, given: int, width: int, *, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv3x3(given, width, stride=stride, dilation=dilation)
        self.norm1 = norm(width)
        self.conv2 = _conv3x3(width, width, stride=1, dilation=1)
        self.norm2 = norm(width)
        self.shortcut = _shortcut(given, width, stride=stride, norm=norm)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[b, given, h, w] to [b, width, h / stride, w / stride]."""
        y = functional.relu(self.norm1(self.conv1(x_bchw)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x_bchw))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, beside a shortcut; the stride is the 3x3's."""

    def __init__(self, given: int, width: int, *, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        wide = width * _BOTTLENECK_EXPANSION
        self.conv1 = nn.Conv2d(given, width, 1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = _conv3x3(width, width, stride=stride, dilation=dilation)
        self.norm2 = norm(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.norm3 = norm(wide)
        self.shortcut = _shortcut(given, wide, stride=stride, norm=norm)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[b, given, h, w] to [b, 4 * width, h / stride, w / stride]."""
        y = functional.relu(self.norm1(self.conv1(x_bchw)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.norm3(self.conv3(y)) + self.shortcut(x_bchw))


class ResNet(nn.Module):
    """Images to the feature map of the last stage.

    Source: He et al., arXiv:1512.03385; strides as in torchvision.
    """

    def __init__(self, size: ResNetSize, *, norm: Norm) -> None:
        super().__init__()
        self.size = size
        self.stem = nn.Conv2d(3, size.widths[0], 7, stride=2, padding=3, bias=False)
        self.stem_norm = norm(size.widths[0])
        self.stages = nn.ModuleList()
        given = size.widths[0]
        for index, width in enumerate(size.widths):
            dilated = size.dilated and index == 3
            stage = _stage(
                size,
                index,
                given=given,
                stride=1 if index == 0 or dilated else 2,
                dilation=2 if dilated else 1,
                norm=norm,
            )
            self.stages.append(stage)
            given = width * (_BOTTLENECK_EXPANSION if size.block == "bottleneck" else 1)

    def forward(self, images_b3hw: Tensor) -> Tensor:
        """The feature map [b, channels, h, w], about a 32nd of the image along each side."""
        x = functional.relu(self.stem_norm(self.stem(images_b3hw)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x


def _stage(
    size: ResNetSize, index: int, *, given: int, stride: int, dilation: int, norm: Norm
) -> nn.Sequential:
    kind = BasicBlock if size.block == "basic" else Bottleneck
    width = size.widths[index]
    wide = width * (_BOTTLENECK_EXPANSION if kind is Bottleneck else 1)
    # The first block of a dilated stage still has the step before it: torchvision widens the rest.
    first = kind(given, width, stride=stride, dilation=1, norm=norm)
    rest = range(size.blocks[index] - 1)
    return nn.Sequential(
        first, *(kind(wide, width, stride=1, dilation=dilation, norm=norm) for _ in rest)
    )


def _conv3x3(given: int, width: int, *, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        given, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def _shortcut(given: int, width: int, *, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and given == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(given, width, 1, stride=stride, bias=False), norm(width))
