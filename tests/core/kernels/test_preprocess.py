"""Image preprocessing against a slow oracle written from its definition."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvla_core.errors import KernelInputError
from fastvla_core.kernels.preprocess import PreprocessSpec, preprocess
from fastvla_core.kernels.preprocess.spec import fit


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def oracle(image: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.float64]:
    """Resize pixel by pixel in float64: half-pixel centres, bilinear, black around."""
    height, width = image.shape[:2]
    area = fit(height, width, spec)
    result = np.full((spec.height, spec.width, 3), -1.0)
    for row in range(area.height):
        source_y = max((row + 0.5) * height / area.height - 0.5, 0.0)
        y0 = int(source_y)
        y1 = min(y0 + 1, height - 1)
        for column in range(area.width):
            source_x = max((column + 0.5) * width / area.width - 0.5, 0.0)
            x0 = int(source_x)
            x1 = min(x0 + 1, width - 1)
            wx, wy = source_x - x0, source_y - y0
            pixels = image.astype(np.float64)
            upper = pixels[y0, x0] * (1 - wx) + pixels[y0, x1] * wx
            lower = pixels[y1, x0] * (1 - wx) + pixels[y1, x1] * wx
            colour = (upper * (1 - wy) + lower * wy) / 127.5 - 1
            result[area.top + row, area.left + column] = colour
    return result.transpose(2, 0, 1)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    to=st.tuples(st.integers(8, 16), st.integers(8, 16)),
    placement=st.sampled_from(["center", "left_top"]),
)
def test_resizing_and_padding_follow_the_definition(size, to, placement) -> None:
    spec = PreprocessSpec(height=to[0], width=to[1], placement=placement)
    image = noise(*size, 3)
    result = preprocess([image], spec)[0].double().numpy()
    # The last bit of a float32 source coordinate below 32 is 2^-19; neighbours differ by at most 2.
    np.testing.assert_allclose(result, oracle(image.numpy(), spec), atol=2 * 2**-19 + 1e-6)


def test_centred_padding_leaves_the_odd_rest_right_and_below() -> None:
    assert fit(10, 20, PreprocessSpec(height=20, width=20)).top == 5
    odd = fit(10, 21, PreprocessSpec(height=21, width=21))
    assert (odd.height, odd.top, 21 - odd.height - odd.top) == (10, 5, 6)


def test_left_top_padding_puts_the_image_in_the_lower_right_corner() -> None:
    spec = PreprocessSpec(height=8, width=8, placement="left_top")
    result = preprocess([torch.full((4, 8, 3), 255, dtype=torch.uint8)], spec)[0]
    assert (result[:, :4] == -1).all()
    assert (result[:, 4:] == 1).all()


def test_sizes_are_cut_to_integers_not_rounded() -> None:
    area = fit(55, 100, PreprocessSpec(height=64, width=64))
    assert (area.height, area.width) == (math.floor(55 * 0.64), 64) == (35, 64)


def test_an_image_of_the_right_size_keeps_every_value() -> None:
    image = noise(96, 96, 3)
    result = preprocess([image], PreprocessSpec(height=96, width=96))[0]
    expected = image.permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(result, expected)
    assert torch.equal(((result + 1) * 127.5).round().to(torch.uint8), image.permute(2, 0, 1))


def test_blue_first_and_grey_images_become_red_green_blue() -> None:
    spec = PreprocessSpec(height=5, width=6)
    image, grey = noise(5, 6, 3), noise(5, 6, 1)
    straight = preprocess([image], spec)
    assert torch.equal(preprocess([image.flip(-1)], spec, encodings="bgr8"), straight)
    planes = preprocess([grey], spec, encodings="mono8")[0]
    assert torch.equal(planes, preprocess([grey.expand(5, 6, 3)], spec)[0])


def test_padded_rows_and_permuted_memory_do_not_matter() -> None:
    spec = PreprocessSpec(height=10, width=14)
    buffer = noise(9, 64)
    padded_rows = buffer.as_strided((9, 13, 3), (64, 3, 1), storage_offset=7)
    planes_first = noise(3, 9, 13).permute(1, 2, 0)
    strided = preprocess([padded_rows, planes_first], spec)
    dense = preprocess([padded_rows.clone(), planes_first.contiguous()], spec)
    torch.testing.assert_close(strided, dense, atol=1e-6, rtol=0)


def test_patches_multiply_like_a_convolution() -> None:
    image = noise(20, 30, 3)
    planes = preprocess([image], PreprocessSpec(height=28, width=42))
    patches = preprocess([image], PreprocessSpec(height=28, width=42, patch=14))
    assert patches.shape == (1, 6, 588)
    weight = torch.randn(4, 3, 14, 14)
    convolved = torch.nn.functional.conv2d(planes, weight, stride=14).flatten(2).mT
    torch.testing.assert_close(patches @ weight.flatten(1).T, convolved, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("patch", [None, 4])
def test_a_batch_equals_its_images_one_by_one(patch: int | None) -> None:
    spec = PreprocessSpec(height=8, width=12, patch=patch)
    front, wrist = noise(3, 8, 12, 3), noise(3, 11, 7, 3)
    batched = preprocess([front, wrist], spec)
    single = torch.stack([preprocess([a, b], spec) for a, b in zip(front, wrist, strict=True)])
    assert batched.shape[:2] == (3, 2)
    torch.testing.assert_close(batched, single, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_result_has_the_type_asked_for(dtype: torch.dtype) -> None:
    image = noise(8, 8, 3)
    result = preprocess([image], PreprocessSpec(height=8, width=8, dtype=dtype))
    exact = preprocess([image], PreprocessSpec(height=8, width=8))
    assert result.dtype == dtype
    assert torch.equal(result, exact.to(dtype))


@pytest.mark.parametrize(
    ("images", "encodings"),
    [
        ([], "rgb8"),
        ([noise(8, 8, 3).float()], "rgb8"),
        ([noise(8, 8)], "mono8"),
        ([noise(8, 8, 4)], "rgb8"),
        ([noise(8, 8, 3)], "mono8"),
        ([noise(8, 8, 3)], "yuv422"),
        ([noise(0, 8, 3)], "rgb8"),
        ([noise(8, 8, 3), noise(2, 8, 8, 3)], "rgb8"),
        ([noise(8, 8, 3)], ["rgb8", "rgb8"]),
        ([noise(200, 2, 3)], "rgb8"),
    ],
)
def test_unusable_images_are_refused(images, encodings) -> None:
    with pytest.raises(KernelInputError, match=r"preprocess: .*\n.*to mend"):
        preprocess(images, PreprocessSpec(height=8, width=8), encodings=encodings)


@pytest.mark.parametrize("sizes", [{"height": 0}, {"patch": 5}, {"patch": -1}])
def test_impossible_specifications_are_refused(sizes) -> None:
    with pytest.raises(KernelInputError):
        PreprocessSpec(**{"height": 16, "width": 16, **sizes})
