"""The projection to rotated heads on the CPU, against one head at a time."""

from __future__ import annotations

import pytest
import torch

from fastvla_core.kernels.qkv_rope import Projection, RopeTable, qkv_rope

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_head_is_projected_and_turned_by_its_tokens_angle(dtype: torch.dtype) -> None:
    b, t, width, heads, groups, d = 2, 3, 10, 4, 2, 6
    x = torch.randn(b, t, width).to(dtype)
    parts = [
        Projection(torch.randn(n * d, width).to(dtype), torch.randn(n * d).to(dtype))
        for n in (heads, groups, groups)
    ]
    angle = torch.rand(b, t, d // 2)
    rope = RopeTable(angle.cos()[:, None], angle.sin()[:, None])
    query, key, value = qkv_rope(x, *parts, head_dim=d, rope=rope)
    assert query is not None
    step = 1e-5 if dtype == torch.float32 else 1e-1 if dtype == torch.bfloat16 else 2e-2
    for found, part, turned in zip((query, key, value), parts, (True, True, False)):
        assert found.dtype == dtype
        assert part.bias is not None
        flat = x.double() @ part.weight.double().T + part.bias.double()
        for head in range(found.shape[1]):
            own = flat[..., head * d : (head + 1) * d]
            pairs = torch.complex(own[..., : d // 2], own[..., d // 2 :])
            if turned:
                pairs = pairs * torch.exp(1j * angle.double())
            exact = torch.cat([pairs.real, pairs.imag], dim=-1)
            torch.testing.assert_close(found[:, head].double(), exact, atol=step, rtol=step)


def test_keys_and_values_can_be_had_alone() -> None:
    x, part = torch.randn(1, 3, 10), Projection(torch.randn(8, 10))
    query, key, value = qkv_rope(x, None, part, part, head_dim=4)
    assert query is None
    assert torch.equal(key, value)
    assert key.shape == (1, 2, 3, 4)
