"""Pieces that several Triton kernels share: activations, and products of tiles.

Shape suffixes: m rows of x, n output features, k input features.
"""

# Kernels take their pointers by position.
# ruff: noqa: PLR0917
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(x, NAME: tl.constexpr):
    """One of `fastvla_core.kernels.activation`, of float32; "" leaves x as it is."""
    if NAME == "relu":
        x = tl.maximum(x, 0.0)
    elif NAME == "silu":
        x = x * tl.sigmoid(x)
    elif NAME == "gelu_tanh":
        # (1 + tanh(u)) / 2 = sigmoid(2 u)
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return x


@triton.jit
def one_product(
    x_row, w_row, mask_m, mask_n,
    K: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """x @ W^T of a tile in float32; rows are pointers [TILE_M, 1] and [1, TILE_N]."""
    acc_mn = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for k0 in range(0, K, TILE_K):
        offs_k = k0 + tl.arange(0, TILE_K)
        mask_k = offs_k < K
        x_mk = tl.load(x_row + offs_k[None, :], mask=mask_m[:, None] & mask_k[None, :], other=0.0)
        w_kn = tl.load(w_row + offs_k[:, None], mask=mask_k[:, None] & mask_n[None, :], other=0.0)
        acc_mn = tl.dot(x_mk, w_kn, acc_mn, input_precision="ieee")
    return acc_mn


@triton.jit
def two_products(
    x_row, left_row, right_row, mask_m, mask_n,
    K: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """x @ L^T and x @ R^T of a tile in float32; x is read once."""
    left_mn = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    right_mn = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for k0 in range(0, K, TILE_K):
        offs_k = k0 + tl.arange(0, TILE_K)
        mask_k = offs_k < K
        mask_kn = mask_k[:, None] & mask_n[None, :]
        x_mk = tl.load(x_row + offs_k[None, :], mask=mask_m[:, None] & mask_k[None, :], other=0.0)
        left_kn = tl.load(left_row + offs_k[:, None], mask=mask_kn, other=0.0)
        right_kn = tl.load(right_row + offs_k[:, None], mask=mask_kn, other=0.0)
        left_mn = tl.dot(x_mk, left_kn, left_mn, input_precision="ieee")
        right_mn = tl.dot(x_mk, right_kn, right_mn, input_precision="ieee")
    return left_mn, right_mn
