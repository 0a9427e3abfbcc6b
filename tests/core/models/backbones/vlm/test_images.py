"""Image preparation against Transformers' image processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from fastvla_core.models.backbones.vlm.images import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    ImageRecipe,
    square_edge,
)

from .reference import image_processor


def photo(height: int, width: int) -> Tensor:
    """A smooth image with edges, uint8 [1, 3, h, w]."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 5, width), indexing="ij")
    planes = torch.stack([torch.sin(x * y), torch.cos(x - y), (x > y).float()])
    return ((planes * 0.5 + 0.5) * 255).round().to(torch.uint8)[None]


def theirs(name: str, image: Tensor, **settings: Any) -> Tensor:
    array = image[0].permute(1, 2, 0).numpy()
    return image_processor(name, **settings)([array], return_tensors="pt")["pixel_values"]


SQUARE = {"height": 56, "width": 56}


@pytest.mark.parametrize("size", [(56, 56), (120, 90), (64, 200), (30, 40)])
def test_stretched_images_are_those_of_siglip(size: tuple[int, int]):
    recipe = ImageRecipe(height=56, width=56, fit="stretch", mean=HALF, std=HALF)
    image = photo(*size)
    _close(recipe(image), theirs("siglip", image, size=SQUARE), std=0.5)


@pytest.mark.parametrize("size", [(56, 56), (120, 90), (64, 200), (30, 47)])
def test_cropped_images_are_those_of_clip(size: tuple[int, int]):
    recipe = ImageRecipe(height=56, width=56, fit="crop", mean=CLIP_MEAN, std=CLIP_STD)
    image = photo(*size)
    expected = theirs("clip", image, size={"shortest_edge": 56}, crop_size=SQUARE)
    _close(recipe(image), expected, std=0.26)


@pytest.mark.parametrize("size", [(120, 90), (64, 200)])
def test_padded_images_are_those_of_llava_onevision(size: tuple[int, int]):
    recipe = ImageRecipe(height=56, width=56, fit="pad", mean=CLIP_MEAN, std=CLIP_STD)
    image = photo(*size)
    array = image[0].permute(1, 2, 0).numpy()
    # Of two images each is one view.
    processor = image_processor(
        "llava_onevision", size=SQUARE, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
    )
    expected = processor([[array, array]], return_tensors="pt")["pixel_values"][0]
    _close(recipe(image), expected[:1], std=0.26)


@given(height=st.integers(20, 1200), width=st.integers(20, 1200))
def test_sizes_are_those_of_qwen(height: int, width: int):
    recipe = ImageRecipe(
        fit="multiple",
        mean=HALF,
        std=HALF,
        factor=28,
        min_pixels=56 * 56,
        max_pixels=28 * 28 * 300,
    )
    expected = smart_resize(height, width, 28, min_pixels=56 * 56, max_pixels=28 * 28 * 300)
    assert recipe.size_of(height, width) == tuple(expected)


def test_an_image_of_the_right_size_is_only_normalised():
    recipe = ImageRecipe(height=32, width=32, fit="stretch", mean=HALF, std=HALF)
    image = photo(32, 32)
    torch.testing.assert_close(recipe(image), image / 127.5 - 1)


@pytest.mark.parametrize(
    ("settings", "edge"),
    [
        ({}, 9),
        ({"size": 5}, 5),
        ({"size": {"shortest_edge": 6}}, 6),
        ({"size": {"height": 7, "width": 7}}, 7),
        ({"size": {"shortest_edge": 6}, "crop_size": {"height": 8, "width": 8}}, 8),
    ],
)
def test_the_edge_is_read_from_settings(settings: dict[str, Any], edge: int):
    assert square_edge(settings, default=9) == edge


def _close(ours: Tensor, expected: Tensor, *, std: float) -> None:
    assert ours.shape == expected.shape
    # Pillow cuts what bicubic weights overshoot at hard edges after each direction, torch once.
    levels = (ours - expected).abs() * std * 255
    assert float((levels > 2.1).float().mean()) < 0.01
    assert float(levels.max()) < 12
    assert float(levels.mean()) < 0.2
