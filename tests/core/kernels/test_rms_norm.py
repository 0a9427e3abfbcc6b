"""The reference of RMSNorm against its definition, and its gradients."""

from __future__ import annotations

import pytest
import torch

from fastvla_core.kernels import rms_norm as op

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
STEP = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_weighted_unit_root_mean_square(dtype: torch.dtype, offset: float) -> None:
    x, weight = torch.randn(2, 3, 17).to(dtype), torch.randn(17)
    found = op.rms_norm(x, weight, eps=1e-6, offset=offset)
    exact = unit(x.double()) * (offset + weight.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=STEP[dtype], rtol=STEP[dtype])


def test_the_sum_is_what_is_normalised_and_handed_on() -> None:
    x, branch, weight = torch.randn(2, 3, 17), torch.randn(2, 3, 17), torch.randn(17)
    total, normed = op.add_rms_norm(x, branch, weight, eps=1e-6)
    assert torch.equal(total, x + branch)
    assert torch.equal(normed, op.rms_norm(total, weight, eps=1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_sample_has_its_own_scale_shift_and_gate(dtype: torch.dtype) -> None:
    x, branch = torch.randn(2, 3, 17).to(dtype), torch.randn(2, 3, 17).to(dtype)
    scale, shift, gate = torch.randn(2, 51).to(dtype).chunk(3, dim=-1)
    total, normed = op.add_adaptive_rms_norm(x, branch, gate, scale, shift, eps=1e-6)
    for b in range(2):
        expected = x[b] + branch[b] * gate[b]
        assert torch.equal(total[b], expected)
        exact = unit(expected.double()) * (1 + scale[b].double()) + shift[b].double()
        torch.testing.assert_close(normed[b].double(), exact, atol=STEP[dtype], rtol=STEP[dtype])
    alone = op.adaptive_rms_norm(total, scale, shift, eps=1e-6)
    assert torch.equal(alone, normed)


def test_gradients_are_those_of_finite_differences() -> None:
    shapes = ((2, 3, 5), (2, 3, 5), (2, 5), (2, 5), (2, 5))
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def both(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return op.add_adaptive_rms_norm(*tensors, eps=1e-6)

    # The norm itself runs in float32, so differences are coarse.
    assert torch.autograd.gradcheck(both, inputs, eps=1e-2, atol=2e-3, rtol=1e-2)
