"""Triton: the projection to velocities and the Euler step in one launch.

Actions are few and hidden features many: a program takes some tokens and some actions, and the
velocity never reaches memory. Shape suffixes: m tokens of all samples, n actions.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvla_core.kernels.triton_parts import one_product

_TILE = 16


@triton.jit
def _euler_kernel(
    x, hidden, weight, bias, out, M, N, tokens, stride_hb, stride_ht, steps,
    K: tl.constexpr, HAS_BIAS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    offs_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    mask_m = offs_m < M
    mask_n = offs_n < N
    mask_mn = mask_m[:, None] & mask_n[None, :]
    row_m = (offs_m // tokens).to(tl.int64) * stride_hb + offs_m % tokens * stride_ht
    speed_mn = one_product(
        hidden + row_m[:, None], weight + offs_n[None, :] * K,
        mask_m, mask_n, K, TILE_M, TILE_N, TILE_K,
    )  # fmt: skip
    if HAS_BIAS:
        speed_mn += tl.load(bias + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
    here_mn = offs_m[:, None] * N + offs_n[None, :]
    x_mn = tl.load(x + here_mn, mask=mask_mn, other=0.0)
    tl.store(out + here_mn, x_mn - speed_mn / steps, mask=mask_mn)


def euler_step(
    x_bta: Tensor, hidden_btd: Tensor, weight_ad: Tensor, bias_a: Tensor | None, *, steps: int
) -> Tensor:
    """x - (hidden @ W^T + b) / steps, float32 [b, t, a]; no gradients."""
    actions, width = weight_ad.shape
    b, t, _ = x_bta.shape
    x_bta = x_bta.contiguous()
    hidden = hidden_btd if hidden_btd.stride(-1) == 1 else hidden_btd.contiguous()
    out = torch.empty_like(x_bta)
    bias = x_bta if bias_a is None else bias_a
    tile_k = 32 if hidden.dtype == torch.float32 else 128
    _euler_kernel[(triton.cdiv(actions, _TILE), triton.cdiv(b * t, _TILE))](
        x_bta, hidden, weight_ad.contiguous(), bias, out, b * t, actions, t,
        hidden.stride(0), hidden.stride(1), float(steps),
        K=width, HAS_BIAS=bias_a is not None, TILE_M=_TILE, TILE_N=_TILE, TILE_K=tile_k,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return out
