"""The block of the residual MLP against the reference in float64, with gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fastvla_core.kernels.residual_mlp import Block, reference
from tests.core.kernels.triton_cases.tolerance import STEP, assert_close, seeded, with_gradients

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]


def block(tensors: list[torch.Tensor]) -> Block:
    gamma, beta, weight, bias = tensors
    return Block(norm_weight=gamma, norm_bias=beta, weight=weight, bias=bias, eps=1e-5)


def before_relu(x: torch.Tensor, block: Block) -> torch.Tensor:
    scaled = functional.layer_norm(x, x.shape[-1:], block.norm_weight, block.norm_bias, block.eps)
    return functional.linear(scaled, block.weight, block.bias)


@pytest.mark.parametrize(
    ("lead", "n", "k"), [((1,), 16, 16), ((2, 9), 50, 50), ((70,), 33, 33), ((3,), 20, 70)]
)
def test_norm_product_relu(
    lead: tuple[int, ...], n: int, k: int, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.residual_mlp.triton import ResidualBlock

    adds = n == k
    sizes = [(*lead, k), (k,), (k,), (n, k), (n,)]
    leaves = [
        seeded(*size, seed=i, device=device, dtype=torch.float32) for i, size in enumerate(sizes)
    ]
    # A mean far from zero is what a norm has to survive.
    leaves[0] += 3.0
    leaves[3] /= k**0.5
    leaves = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    # So near to zero rounding decides which side of ReLU's corner a number is on.
    sure = (before_relu(exact[0], block(exact[1:])).abs() > STEP[dtype]).to(dtype)
    out = ResidualBlock.apply(*leaves, 1e-5, adds)
    found = with_gradients(out * sure, leaves, dtype)
    run = reference.add_norm_relu if adds else reference.norm_relu
    expected = with_gradients(run(exact[0], block(exact[1:])) * sure, exact, dtype)
    assert sure.mean() > 0.9
    assert out.dtype == dtype
    assert_close(found, expected, dtype)
