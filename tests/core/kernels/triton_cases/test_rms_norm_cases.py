"""RMSNorm's kernels against the reference in float64: values and gradients, plain and adaptive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvla_core.kernels.rms_norm import reference
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded, with_gradients

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]

EPS = 1e-6
SHAPES = [(1, 1, 1), (2, 5, 720), (3, 11, 33), (1, 19, 64)]


def leaves(count: int, shape: tuple[int, ...], like: Tensor) -> list[Tensor]:
    made = [
        seeded(*shape, seed=i, device=like.device, dtype=torch.float32).to(like.dtype)
        for i in range(count)
    ]
    return [leaf.requires_grad_() for leaf in made]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("adds", [False, True])
def test_plain_norm(
    shape: tuple[int, ...], offset: float, adds: bool, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.rms_norm.triton import RmsNorm

    x, branch = leaves(2, shape, torch.empty(0, dtype=dtype, device=device))
    (weight,) = leaves(1, shape[-1:], torch.empty(0, device=device))
    inputs = [x, weight, branch] if adds else [x, weight]
    out = RmsNorm.apply(x, branch if adds else None, None, weight, None, EPS, offset)
    found = with_gradients(out, inputs, dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in inputs]
    total = reference.add(exact[0], exact[2]) if adds else exact[0]
    total = total + (total.to(dtype).double() - total).detach()
    factor = offset + exact[1]
    normed = torch.nn.functional.rms_norm(total, shape[-1:], factor, EPS)
    outs = (total, normed) if adds else (normed,)
    assert [f.dtype for f in found[: len(outs)]] == [dtype] * len(outs)
    assert_close(found, with_gradients(outs, exact, dtype), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adds", [False, True])
def test_adaptive_norm(
    shape: tuple[int, ...], adds: bool, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.rms_norm.triton import RmsNorm

    like = torch.empty(0, dtype=dtype, device=device)
    x, branch = leaves(2, shape, like)
    # As a layer has them: thirds of one tensor, so that rows lie far apart.
    (steer,) = leaves(1, (shape[0], 3 * shape[2]), like)
    scale, shift, gate = steer.chunk(3, dim=-1)
    inputs = [x, steer, branch] if adds else [x, steer]
    out = RmsNorm.apply(x, branch if adds else None, gate if adds else None, scale, shift, EPS, 1.0)
    found = with_gradients(out, inputs, dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in inputs]
    scale, shift, gate = exact[1][:, None].chunk(3, dim=-1)
    total = exact[0] + exact[2] * gate if adds else exact[0]
    total = total + (total.to(dtype).double() - total).detach()
    normed = torch.nn.functional.rms_norm(total, shape[-1:], None, EPS) * (1 + scale) + shift
    outs = (total, normed) if adds else (normed,)
    assert_close(found, with_gradients(outs, exact, dtype), dtype)


def test_strided_inputs_are_read_as_they_are(device: torch.device) -> None:
    from fastvla_core.kernels.rms_norm.triton import RmsNorm

    x = seeded(24, 6, seed=0, device=device, dtype=torch.float32).T
    weight = torch.ones(24, device=device)
    found = RmsNorm.apply(x, None, None, weight, None, EPS, 0.0)
    torch.testing.assert_close(found, reference.rms_norm(x, weight, eps=EPS, offset=0.0))
