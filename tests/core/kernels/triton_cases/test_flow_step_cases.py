"""The Euler step with its projection against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from tests.core.kernels.triton_cases.tolerance import seeded

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]


@pytest.mark.parametrize("shape", [(1, 1, 3, 8), (2, 19, 33, 70), (3, 5, 7, 130)])
@pytest.mark.parametrize("biased", [False, True])
def test_one_step_down_the_flow(
    shape: tuple[int, ...], biased: bool, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.flow_step import triton as kernel

    b, t, a, d = shape
    x = seeded(b, t, a, seed=0, device=device, dtype=torch.float32)
    # The action tokens are the last of the expert's: rows of a sample lie further apart.
    hidden = seeded(b, t + 1, d, seed=1, device=device, dtype=dtype)[:, 1:]
    weight = seeded(a, d, seed=2, device=device, dtype=dtype) / 8
    bias = seeded(a, seed=3, device=device, dtype=dtype) if biased else None
    found = kernel.euler_step(x, hidden, weight, bias, steps=7)
    speed = hidden.double() @ weight.double().T
    exact = x.double() - (speed if bias is None else speed + bias.double()) / 7
    assert (found.dtype, found.shape) == (torch.float32, x.shape)
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
