"""Row-wise 8-bit weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvla_core.errors import QuantError
from fastvla_core.quant import int8

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 2**-22, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    spread=st.sampled_from([1e-3, 0.05, 30.0]),
)
def test_round_trip_stays_within_half_a_step(n: int, k: int, dtype, spread: float) -> None:
    weight = (torch.randn(n, k) * spread).to(dtype)
    packed = int8.quantize(weight)
    assert (packed.codes.dtype, packed.absmax.shape) == (torch.int8, (n,))
    error = (int8.dequantize(packed, dtype).float() - weight.float()).abs()
    assert (error <= packed.absmax[:, None] * (0.5 / 127 + ROUNDING[dtype]) + 1e-7).all()


def test_each_row_has_its_own_scale() -> None:
    weight = torch.randn(3, 40) * torch.tensor([[1.0], [1e-3], [1e3]])
    relative = (int8.dequantize(int8.quantize(weight), torch.float32) - weight).abs()
    assert (relative.amax(1) <= weight.abs().amax(1) / 253).all()


def test_zero_and_vanishing_rows_stay_finite() -> None:
    weight = torch.stack([torch.zeros(8), torch.full((8,), 1e-42), torch.ones(8)])
    result = int8.dequantize(int8.quantize(weight), torch.float32)
    torch.testing.assert_close(result, weight, atol=1e-40, rtol=1e-6)


def test_weights_that_hold_nan_are_refused() -> None:
    with pytest.raises(QuantError, match="NaN"):
        int8.quantize(torch.full((2, 2), float("nan")))
