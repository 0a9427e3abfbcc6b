"""Triton: one launch for queries, keys and values, rotated before they are stored.

A program makes TILE_N pairs of one head for TILE_M tokens: the left and the right element of a
pair lie half a head apart, so it holds two tiles and rotates them in registers. Shape suffixes:
m tokens of all samples, n pairs.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvla_core.kernels.tiles import Product, Tiles, tiles_for
from fastvla_core.kernels.triton_parts import two_products

from .spec import Projection, RopeTable


@triton.jit
def _qkv_kernel(
    x, q_weight, k_weight, v_weight, q_bias, k_bias, v_bias, cos, sin, q, k, v,
    M, tokens, stride_angle_b, stride_angle_t,
    K: tl.constexpr, HEADS: tl.constexpr, GROUPS: tl.constexpr, HALF: tl.constexpr,
    BIASED: tl.constexpr, ROTATES: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    if head < HEADS:
        weight = q_weight
        bias = q_bias
        out = q
    elif head < HEADS + GROUPS:
        weight = k_weight
        bias = k_bias
        out = k
    else:
        weight = v_weight
        bias = v_bias
        out = v
    heads = tl.where(head < HEADS, HEADS, GROUPS)
    inner = tl.where(head < HEADS, head, (head - HEADS) % GROUPS)
    offs_n = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    offs_m = tl.program_id(2) * TILE_M + tl.arange(0, TILE_M)
    mask_n = offs_n < HALF
    mask_m = offs_m < M
    left_n = inner * (2 * HALF) + offs_n
    x_row = x + offs_m.to(tl.int64)[:, None] * K
    left_row = weight + left_n.to(tl.int64)[None, :] * K
    left_mn, right_mn = two_products(
        x_row, left_row, left_row + HALF * K, mask_m, mask_n, K, TILE_M, TILE_N, TILE_K
    )
    if BIASED:
        left_mn += tl.load(bias + left_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
        right_mn += tl.load(bias + left_n + HALF, mask=mask_n, other=0.0).to(tl.float32)[None, :]
    sample_m = offs_m // tokens
    token_m = offs_m % tokens
    mask_mn = mask_m[:, None] & mask_n[None, :]
    # The outer question is answered when the kernel is compiled, the inner one when it runs.
    if ROTATES:  # noqa: SIM102
        if head < HEADS + GROUPS:
            angle_m = sample_m * stride_angle_b + token_m * stride_angle_t
            angle_mn = angle_m[:, None] + offs_n[None, :]
            cos_mn = tl.load(cos + angle_mn, mask=mask_mn, other=0.0)
            sin_mn = tl.load(sin + angle_mn, mask=mask_mn, other=0.0)
            turned_mn = left_mn * cos_mn - right_mn * sin_mn
            right_mn = right_mn * cos_mn + left_mn * sin_mn
            left_mn = turned_mn
    row_m = (sample_m.to(tl.int64) * heads + inner) * tokens + token_m
    out_mn = out + row_m[:, None] * (2 * HALF) + offs_n[None, :]
    kind = out.dtype.element_ty
    tl.store(out_mn, left_mn.to(kind), mask=mask_mn)
    tl.store(out_mn + HALF, right_mn.to(kind), mask=mask_mn)


def qkv_rope(
    x_btw: Tensor,
    query: Projection | None,
    key: Projection,
    value: Projection,
    *,
    head_dim: int,
    rope: RopeTable | None,
    tiles: Tiles | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Queries [b, h, t, d], keys and values [b, g, t, d]; no gradients.

    Args:
        tiles: None takes those kept for this GPU.
    """
    b, t, width = x_btw.shape
    x_btw = x_btw.contiguous()
    heads = 0 if query is None else query.weight.shape[0] // head_dim
    groups = key.weight.shape[0] // head_dim
    q = torch.empty((b, heads, t, head_dim), dtype=x_btw.dtype, device=x_btw.device)
    k, v = (q.new_empty((b, groups, t, head_dim)) for _ in range(2))
    # Without queries, biases or angles their slots are never read: any pointer will do.
    parts = (key if query is None else query, key, value)
    biases = [x_btw if part.bias is None else part.bias for part in parts]
    cos, sin, stride_b, stride_t = _angles(rope, x_btw)
    product = product_of(b * t, (heads + 2 * groups) * head_dim, key)
    tiles = tiles or tiles_for(product, x_btw.device)
    half = head_dim // 2
    grid = (heads + 2 * groups, triton.cdiv(half, tiles.n), triton.cdiv(b * t, tiles.m))
    _qkv_kernel[grid](
        x_btw, *(part.weight.contiguous() for part in parts), *biases, cos, sin, q, k, v,
        b * t, t, stride_b, stride_t,
        K=width, HEADS=heads, GROUPS=groups, HALF=half,
        BIASED=key.bias is not None, ROTATES=rope is not None, **tiles.constants,
    )  # fmt: skip
    return (None if query is None else q), k, v


def product_of(rows: int, outputs: int, key: Projection) -> Product:
    """What the tiles are chosen by."""
    dtype = str(key.weight.dtype).removeprefix("torch.")
    return Product(
        operator="qkv_rope", rows=rows, inputs=key.weight.shape[1], outputs=outputs, dtype=dtype
    )


def _angles(rope: RopeTable | None, missing: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """Cosine, sine, and how far samples and tokens lie apart in both."""
    if rope is None:
        return missing, missing, 0, 0
    cos, sin = rope.cos_tk.contiguous(), rope.sin_tk.contiguous()
    return cos, sin, cos.stride(0) if cos.ndim == 4 else 0, cos.stride(-2)
