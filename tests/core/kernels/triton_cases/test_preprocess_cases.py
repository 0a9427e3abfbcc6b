"""The preprocessing kernel against the reference: sizes, strides, encodings, layouts, types."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvla_core.kernels.preprocess import Encoding, PreprocessSpec, reference

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu


def noise(*shape: int, device: torch.device) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8).to(device)


def check(images: list[Tensor], encodings: list[Encoding], spec: PreprocessSpec) -> None:
    from fastvla_core.kernels.preprocess import triton as kernel

    expected = reference.preprocess(images, encodings, spec)
    out = torch.full_like(expected, float("nan"))
    kernel.launch(kernel.image_table(images, encodings, spec), out, spec)
    # The last bit of a float32 source coordinate below 64 is 2^-18; neighbours differ by at most 2.
    tolerance = 1e-2 if spec.dtype != torch.float32 else 2 * 2**-18 + 1e-6
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("placement", ["center", "left_top"])
@pytest.mark.parametrize("patch", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cameras_of_different_sizes_share_one_launch(
    placement: str, patch: int | None, dtype: torch.dtype, device: torch.device
) -> None:
    spec = PreprocessSpec(height=16, width=24, placement=placement, patch=patch, dtype=dtype)
    images = [noise(16, 24, 3, device=device), noise(9, 31, 3, device=device)]
    images.append(noise(40, 13, 1, device=device))
    check(images, ["rgb8", "bgr8", "mono8"], spec)


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    to=st.tuples(st.integers(10, 20), st.integers(10, 20)),
)
def test_any_size_fits_any_size(
    size: tuple[int, int], to: tuple[int, int], device: torch.device
) -> None:
    spec = PreprocessSpec(height=to[0], width=to[1])
    check([noise(*size, 3, device=device)], ["rgb8"], spec)


def test_padded_rows_and_batches_are_read_in_place(device: torch.device) -> None:
    spec = PreprocessSpec(height=12, width=12)
    wide = noise(2, 14, 40, device=device)
    padded_rows = wide.as_strided((2, 14, 11, 3), (wide.stride(0), 40, 3, 1), storage_offset=2)
    mirrored_layout = noise(3, 14, 11, 2, device=device).permute(3, 1, 2, 0)
    check([padded_rows, mirrored_layout], ["rgb8", "bgr8"], spec)
