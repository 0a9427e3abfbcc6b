"""Residual networks: sizes, strides, and norms that stay as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastvla_core.models.backbones.resnet import (
    PUBLISHED,
    FrozenBatchNorm2d,
    ResNet,
    ResNetSize,
    group_norm,
)

BASIC = ResNetSize(block="basic", widths=(16, 16, 32, 32), blocks=(1, 2, 1, 1))
DEEP = ResNetSize(block="bottleneck", widths=(16, 16, 16, 16), blocks=(1, 1, 1, 2), dilated=True)


@pytest.mark.parametrize("size", [BASIC, DEEP])
@pytest.mark.parametrize("image", [(48, 64), (40, 41), (97, 33)])
def test_the_map_has_the_size_that_is_told_before(size: ResNetSize, image: tuple[int, int]):
    found = ResNet(size, norm=FrozenBatchNorm2d)(torch.randn(2, 3, *image))
    assert found.shape == (2, size.channels, *size.map_size(*image))


def test_published_networks_have_as_many_weights_as_torchvision_s():
    # Without the classifier of 1000 classes, which is 1000 x channels + 1000.
    expected = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
    for name, total in expected.items():
        with torch.device("meta"):
            network = ResNet(PUBLISHED[name], norm=nn.BatchNorm2d)
        found = sum(parameter.numel() for parameter in network.parameters())
        assert found == total - 1000 * (PUBLISHED[name].channels + 1)


def test_frozen_norms_are_batch_norms_in_use_and_do_not_learn():
    frozen, usual = FrozenBatchNorm2d(8), nn.BatchNorm2d(8)
    for source in (usual.weight.data, usual.bias.data, usual.running_mean):
        source.normal_()
    usual.running_var.uniform_(0.5, 2.0)
    frozen.load_state_dict(usual.state_dict(), strict=False)
    x = torch.randn(3, 8, 5, 4)
    torch.testing.assert_close(frozen.train()(x), usual.eval()(x))
    assert not list(frozen.parameters())
    assert torch.equal(frozen.running_mean, usual.running_mean)


def test_groups_are_of_sixteen_channels():
    norm = group_norm(48)
    x = torch.randn(2, 48, 6, 6)
    grouped = norm(x).unflatten(1, (3, 16)).flatten(2)
    torch.testing.assert_close(grouped.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
