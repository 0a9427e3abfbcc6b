"""The projection with its rotation against the reference in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from fastvla_core.kernels.qkv_rope import Projection, RopeTable, reference
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]


def projection(outputs: int, width: int, *, bias: bool, seed: int, like: Tensor) -> Projection:
    weight = seeded(outputs, width, seed=seed, device=like.device, dtype=torch.float32)
    shift = seeded(outputs, seed=seed + 1, device=like.device, dtype=torch.float32)
    scaled = (weight / width**0.5).to(like.dtype)
    return Projection(scaled, shift.to(like.dtype) if bias else None)


def table(positions: Tensor, half: int) -> RopeTable:
    angles = positions.float()[..., None] * 10_000.0 ** (-torch.arange(half) / half)
    return RopeTable(angles.cos(), angles.sin())


def in_double(part: Projection | None) -> Projection | None:
    if part is None:
        return None
    return Projection(part.weight.double(), None if part.bias is None else part.bias.double())


def check(
    x: Tensor,
    parts: tuple[Projection | None, Projection, Projection],
    *,
    head_dim: int,
    rope: RopeTable | None,
) -> None:
    from fastvla_core.kernels.qkv_rope import triton as kernel

    found = kernel.qkv_rope(x, *parts, head_dim=head_dim, rope=rope)
    query, key, value = (in_double(part) for part in parts)
    assert key is not None
    assert value is not None
    if rope is not None:
        doubled = (field.double() for field in (rope.cos_tk, rope.sin_tk))
        rope = dataclasses.replace(rope, **dict(zip(("cos_tk", "sin_tk"), doubled)))
    exact = reference.qkv_rope(x.double(), query, key, value, head_dim=head_dim, rope=rope)
    assert (found[0] is None) == (exact[0] is None)
    pairs = [(f, e) for f, e in zip(found, exact) if f is not None and e is not None]
    assert all(f.dtype == x.dtype and f.shape == e.shape for f, e in pairs)
    assert_close([f for f, _ in pairs], [e for _, e in pairs], x.dtype)


# b, t, width, heads, groups, head_dim: grouped, multi-query, one token, odd width, wide heads.
SHAPES = [(2, 5, 48, 4, 2, 16), (1, 1, 33, 3, 1, 8), (1, 19, 40, 2, 2, 72), (2, 9, 70, 1, 1, 256)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
def test_queries_keys_and_values(
    shape: tuple[int, ...], bias: bool, per_sample: bool, dtype: torch.dtype, device: torch.device
) -> None:
    b, t, width, heads, groups, d = shape
    x = seeded(b, t, width, seed=0, device=device, dtype=dtype)
    parts = [
        projection(n * d, width, bias=bias, seed=10 * i, like=x)
        for i, n in enumerate((heads, groups, groups))
    ]
    positions = 7 + torch.arange(b)[:, None, None] * 3 + torch.arange(t)
    rope = table(positions if per_sample else positions[0, 0], d // 2)
    rope = RopeTable(rope.cos_tk.to(device), rope.sin_tk.to(device))
    check(x, (parts[0], parts[1], parts[2]), head_dim=d, rope=rope)


def test_keys_and_values_alone_and_without_rotation(
    dtype: torch.dtype, device: torch.device
) -> None:
    x = seeded(2, 3, 20, seed=0, device=device, dtype=dtype).transpose(0, 1)
    key, value = (projection(16, 20, bias=False, seed=i, like=x) for i in (1, 2))
    check(x, (None, key, value), head_dim=8, rope=None)


def test_more_rows_than_a_tile(device: torch.device) -> None:
    x = seeded(1, 70, 20, seed=0, device=device, dtype=torch.float16)
    key, value = (projection(80, 20, bias=True, seed=i, like=x) for i in (1, 2))
    check(x, (None, key, value), head_dim=80, rope=None)
