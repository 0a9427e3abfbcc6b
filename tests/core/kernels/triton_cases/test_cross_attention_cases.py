"""Cross-attention and the gated way back against plain products in float64, with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvla_core.kernels.cross_attention import reference
from fastvla_core.kernels.prefix_attention import KeyValue
from fastvla_core.kernels.prefix_attention.reference import by_products
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded, with_gradients

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]


def doubled(leaves: list[Tensor]) -> list[Tensor]:
    return [leaf.detach().double().requires_grad_() for leaf in leaves]


# b, heads, groups, words, keys, d: grouped, one word, odd sizes, wide heads.
SHAPES = [(2, 4, 2, 5, 40, 16), (1, 2, 2, 1, 7, 8), (3, 2, 1, 19, 33, 24), (1, 1, 1, 3, 17, 256)]


@pytest.mark.parametrize("shape", SHAPES)
def test_words_read_the_images_that_are_there(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.cross_attention.triton import CrossAttention

    b, h, g, t, s, d = shape
    sizes = ((b, h, t, d), (b, g, s, d), (b, g, s, d))
    leaves = [
        seeded(*size, seed=i, device=device, dtype=dtype).requires_grad_()
        for i, size in enumerate(sizes)
    ]
    mask_bs = torch.ones(b, s, dtype=torch.bool, device=device)
    mask_bs[-1, s // 3 : 2 * s // 3] = False
    found = with_gradients(CrossAttention.apply(*leaves, mask_bs), leaves, dtype)
    q, key, value = exact = doubled(leaves)
    mixed = by_products(q, KeyValue(key, value), mask_bs[:, None, None])
    assert found[0].dtype == dtype
    assert_close(found, with_gradients(mixed, exact, dtype), dtype)
    assert not found[2][-1, :, s // 3 : 2 * s // 3].any()


def test_one_mask_serves_all_samples(device: torch.device) -> None:
    from fastvla_core.kernels.cross_attention.triton import CrossAttention

    q, key, value = (
        seeded(2, 1, n, 8, seed=n, device=device, dtype=torch.float32) for n in (3, 5, 5)
    )
    mask = torch.tensor([[True, False, True, True, False]], device=device)
    found = CrossAttention.apply(q, key, value, mask)
    exact = by_products(q, KeyValue(key, value), mask[:, None, None])
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [((1,), 16, 64), ((2, 9), 33, 50), ((70,), 7, 5)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_gate_lets_a_part_of_the_branch_through(
    shape: tuple[tuple[int, ...], int, int], biased: bool, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.cross_attention.triton import GatedProjection

    lead, n, k = shape
    sizes = [(*lead, n), (*lead, k), (n, k), (1,), (n,)]
    leaves = [
        (seeded(*size, seed=i, device=device, dtype=dtype) / 2).requires_grad_()
        for i, size in enumerate(sizes)
    ]
    leaves = leaves if biased else leaves[:4]

    def arranged(x: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        return x[0], x[1], x[2], x[4] if biased else None, x[3]

    found = with_gradients(GatedProjection.apply(*arranged(leaves)), leaves, dtype)
    exact = doubled(leaves)
    expected = with_gradients(reference.gated_projection(*arranged(exact)), exact, dtype)
    assert found[0].dtype == dtype
    assert_close(found, expected, dtype)
