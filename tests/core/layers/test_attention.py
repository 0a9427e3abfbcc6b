from __future__ import annotations

import pytest
import torch

from fastvla_core.layers.attention import Attention, AttentionShape, KeyValue, attend
from fastvla_core.layers.rope import rope_table

SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=8)


def _inputs(*, queries: int = 3, keys: int = 5) -> tuple[torch.Tensor, KeyValue]:
    query = torch.randn(2, 4, queries, 8)
    return query, KeyValue(torch.randn(2, 2, keys, 8), torch.randn(2, 2, keys, 8))


def _reference(query: torch.Tensor, memory: KeyValue, allowed: torch.Tensor) -> torch.Tensor:
    rows = torch.empty_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for t in range(query.shape[2]):
                seen = allowed[b, 0, min(t, allowed.shape[2] - 1)]
                keys, values = memory.key_bgsd[b, h // 2], memory.value_bgsd[b, h // 2]
                scores = keys[seen] @ query[b, h, t] / 8**0.5
                rows[b, h, t] = scores.softmax(0) @ values[seen]
    return rows


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("mask_rows", [1, 3])
def test_both_paths_agree_with_a_loop_over_heads(with_gradients: bool, mask_rows: int):
    query, memory = _inputs()
    allowed = torch.rand(2, 1, mask_rows, 5) < 0.5
    allowed[..., 0] = True
    with torch.set_grad_enabled(with_gradients):
        found = attend(query, memory, allowed)
    torch.testing.assert_close(found, _reference(query, memory, allowed), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_masked_keys_have_no_influence_even_when_they_are_huge(with_gradients: bool):
    query, memory = _inputs()
    allowed = torch.tensor([True, True, False, True, False])[None, None, None]
    with torch.set_grad_enabled(with_gradients):
        before = attend(query, memory, allowed)
        memory.key_bgsd[:, :, [2, 4]] = 1e4
        memory.value_bgsd[:, :, [2, 4]] = -1e4
        assert torch.equal(attend(query, memory, allowed), before)


def test_no_mask_means_all_are_seen():
    query, memory = _inputs()
    everything = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(attend(query, memory), attend(query, memory, everything))


def test_gradients_reach_queries_keys_and_values():
    query, memory = _inputs()
    leaves = [query, memory.key_bgsd, memory.value_bgsd]
    for leaf in leaves:
        leaf.requires_grad_()
    attend(query, memory).square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().max() > 0 for leaf in leaves)


def test_a_sequence_in_two_parts_gives_what_it_gives_in_one():
    layer = Attention(16, SHAPE).eval()
    x = torch.randn(2, 7, 16)
    with torch.no_grad():
        whole, _ = layer(x, rope_table(torch.arange(7), head_dim=8), None)
        _, cached = layer(x[:, :4], rope_table(torch.arange(4), head_dim=8), None)
        rest, _ = layer(x[:, 4:], rope_table(torch.arange(4, 7), head_dim=8), None, cached)
    torch.testing.assert_close(rest, whole[:, 4:], atol=1e-5, rtol=1e-5)
