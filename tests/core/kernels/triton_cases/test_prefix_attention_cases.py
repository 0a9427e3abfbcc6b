"""Attention to a prefix and own tokens against plain products in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvla_core.kernels.prefix_attention import BlockMask, KeyValue, block_mask, reference
from fastvla_core.kernels.prefix_attention.choice import Shape, measured
from tests.core.kernels.attention_choice import tabulate
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]


def memory(b: int, g: int, s: int, d: int, *, seed: int, like: Tensor) -> KeyValue:
    key, value = (
        seeded(b, g, s, d, seed=seed + i, device=like.device, dtype=like.dtype) for i in (0, 1)
    )
    return KeyValue(key, value)


def two_cameras(
    b: int, tokens: int, prefix: int, *, causal: bool, device: torch.device
) -> BlockMask:
    """A prefix whose second third is missing in every other sample, then own tokens."""
    real = torch.ones(b, prefix + tokens, dtype=torch.bool)
    real[::2, prefix // 3 : 2 * prefix // 3] = False
    own = torch.arange(tokens) if causal else torch.zeros(tokens, dtype=torch.long)
    blocks = torch.cat([torch.full((prefix,), -1), own])
    return block_mask(own.to(device), blocks.to(device), real.to(device))


def check(
    q: Tensor, own: KeyValue, mask: BlockMask, prefix: KeyValue | None, splits: int | None
) -> None:
    from fastvla_core.kernels.prefix_attention import triton as kernel

    found, lse = kernel.attend(q, own, mask, prefix, splits=splits)
    whole = own if prefix is None else prefix.then(own)
    doubled = KeyValue(whole.key_bgsd.double(), whole.value_bgsd.double())
    exact = reference.by_products(q.double(), doubled, mask.dense)
    assert (found.dtype, found.shape) == (q.dtype, q.shape)
    assert_close([found], [exact], q.dtype)
    keys = doubled.key_bgsd.repeat_interleave(q.shape[1] // own.key_bgsd.shape[1], dim=1)
    scores = (q.double() @ keys.mT * q.shape[-1] ** -0.5).masked_fill(~mask.dense, -math.inf)
    torch.testing.assert_close(
        lse.double(), scores.logsumexp(-1) / math.log(2), atol=2e-2, rtol=2e-2
    )


# b, heads, groups, tokens, prefix, d: grouped, multi-query with wide heads, one token, odd sizes.
SHAPES = [(2, 4, 2, 5, 40, 16), (1, 4, 1, 7, 33, 256), (3, 3, 3, 1, 37, 8), (1, 6, 2, 19, 9, 72)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("splits", "causal"), [(1, True), (3, False)])
def test_a_chunk_reads_a_cached_prefix_and_itself(
    shape: tuple[int, ...], splits: int, causal: bool, dtype: torch.dtype, device: torch.device
) -> None:
    b, h, g, t, p, d = shape
    q = seeded(b, h, t, d, seed=0, device=device, dtype=dtype)
    prefix, own = (memory(b, g, s, d, seed=10 * s, like=q) for s in (p, t))
    mask = two_cameras(b, t, p, causal=causal, device=device)
    check(q, own, mask, prefix, splits)


def test_a_prefix_reads_itself_with_its_state_in_a_block_of_its_own(
    dtype: torch.dtype, device: torch.device
) -> None:
    # As projections leave them: heads behind tokens in memory.
    q = seeded(2, 37, 4, 16, seed=0, device=device, dtype=dtype).transpose(1, 2)
    own = memory(2, 37, 2, 16, seed=1, like=q)
    own = KeyValue(own.key_bgsd.transpose(1, 2), own.value_bgsd.transpose(1, 2))
    blocks = torch.zeros(37, dtype=torch.long, device=device)
    blocks[-1] = 1
    real = torch.ones(2, 37, dtype=torch.bool, device=device)
    real[1, 10:20] = False
    check(q, own, block_mask(blocks, blocks, real), None, None)


def test_a_part_without_real_keys_changes_nothing(device: torch.device) -> None:
    q = seeded(1, 2, 3, 16, seed=0, device=device, dtype=torch.float32)
    prefix, own = (memory(1, 1, s, 16, seed=10 * s, like=q) for s in (96, 3))
    mask = two_cameras(1, 3, 96, causal=False, device=device)
    check(q, own, mask, prefix, 3)


def test_the_switch_takes_the_kernel_and_gradients_do_not(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    from fastvla_core.kernels import switch
    from fastvla_core.kernels.prefix_attention import prefix_attention
    from fastvla_core.kernels.prefix_attention import triton as kernel

    q = seeded(1, 2, 3, 16, seed=0, device=device, dtype=torch.float32)
    prefix, own = (memory(1, 1, s, 16, seed=10 * s, like=q) for s in (5, 3))
    mask = two_cameras(1, 3, 5, causal=True, device=device)
    monkeypatch.setenv("FASTVLA_KERNELS", "prefix_attention")
    switch.switched_on.cache_clear()
    try:
        found = prefix_attention(q, own, mask, prefix=prefix)
        learns = prefix_attention(q.clone().requires_grad_(), own, mask, prefix=prefix)
    finally:
        switch.switched_on.cache_clear()
    assert torch.equal(found, kernel.attend(q, own, mask, prefix)[0])
    assert learns.grad_fn is not None
    torch.testing.assert_close(learns.detach(), found, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("device")
def test_the_command_keeps_the_fastest_that_is_right(tmp_path: Path) -> None:
    # On the CPU the interpreter takes part, and cannot win.
    shape = Shape(
        batch=1, heads=2, kv_heads=1, head_dim=8, queries=3, prefix_keys=4, own_keys=3,
        dtype="float32",
    )  # fmt: skip
    names = ("triton", "sdpa")
    tabulate([shape], torch.device("cpu"), names=names, folder=tmp_path)
    assert measured("cpu", folder=tmp_path) == {shape: "sdpa"}
