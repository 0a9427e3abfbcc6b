"""Attention with block masks on the CPU, FlexAttention beside it, and the table of the fastest."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from fastvla_core.kernels.prefix_attention import KeyValue, block_mask, flex, prefix_attention
from fastvla_core.kernels.prefix_attention.choice import Shape, choose, measured, write


def case(*, queries: int = 3, prefix: int = 4) -> tuple[Tensor, KeyValue, KeyValue]:
    q = torch.randn(2, 4, queries, 8)
    return q, *(
        KeyValue(torch.randn(2, 2, s, 8), torch.randn(2, 2, s, 8)) for s in (queries, prefix)
    )


def by_hand(q: Tensor, memory: KeyValue, allowed: Tensor) -> Tensor:
    rows = torch.empty_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = allowed[b, 0, t]
                keys, values = memory.key_bgsd[b, h // 2][seen], memory.value_bgsd[b, h // 2][seen]
                weights = (keys @ q[b, h, t] / math.sqrt(8)).softmax(0)
                rows[b, h, t] = weights @ values
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_prefix_and_own_tokens_are_one_memory(with_gradients: bool, dtype: torch.dtype) -> None:
    q, own, prefix = case()
    blocks = torch.tensor([0, 1, 1])
    real = torch.tensor([[1, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]).bool()
    mask = block_mask(blocks, torch.cat([torch.full((4,), -1), blocks]), real)
    expected = [[True] * 5 + [False] * 2, [True] * 7, [True] * 7]
    assert torch.equal(mask.dense[0, 0], torch.tensor(expected) & real[0])
    parts = [KeyValue(m.key_bgsd.to(dtype), m.value_bgsd.to(dtype)) for m in (own, prefix)]
    with torch.set_grad_enabled(with_gradients):
        found = prefix_attention(q.to(dtype), parts[0], mask, prefix=parts[1])
    step = 1e-5 if dtype == torch.float32 else 5e-2
    exact = by_hand(q, prefix.then(own), mask.dense)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=step, rtol=step)


def test_flex_attention_sees_what_the_mask_says() -> None:
    q, own, prefix = case()
    blocks = torch.tensor([0, 1, 1])
    real = torch.rand(2, 7) < 0.7
    real[:, 0] = True
    mask = block_mask(blocks, torch.cat([torch.full((4,), -1), blocks]), real)
    with warnings.catch_warnings():
        # It recommends its compiled self, which takes longer to compile than all tests here.
        warnings.simplefilter("ignore")
        found = flex.attend(q, prefix.then(own), mask, attention=flex_attention)
    exact = by_hand(q, prefix.then(own), mask.dense)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)


def test_what_was_measured_is_chosen_and_the_rest_takes_sdpa(tmp_path: Path) -> None:
    q, own, _ = case()
    known = Shape.of(q, own.key_bgsd, prefix_keys=4)
    write({known: "triton"}, "Some GPU", folder=tmp_path)
    table = measured("Some GPU", folder=tmp_path)
    assert table == {known: "triton"}
    assert Shape.of(q, own.key_bgsd, prefix_keys=5) not in table
    assert measured("Another GPU", folder=tmp_path) == {}
    assert choose(known, torch.device("cpu")) == "sdpa"
