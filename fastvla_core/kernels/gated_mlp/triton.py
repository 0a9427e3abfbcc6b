"""Triton: both products of a gated MLP in one pass over x; the gate never reaches memory."""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.tiles import Product, Tiles, tiles_for
from fastvla_core.kernels.triton_parts import activate, two_products


@triton.jit
def _gated_kernel(
    x, gate_weight, up_weight, out, M, N,
    K: tl.constexpr, ACTIVATION: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    offs_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    mask_m = offs_m < M
    mask_n = offs_n < N
    row_n = offs_n.to(tl.int64)[None, :] * K
    gate_mn, up_mn = two_products(
        x + offs_m.to(tl.int64)[:, None] * K, gate_weight + row_n, up_weight + row_n,
        mask_m, mask_n, K, TILE_M, TILE_N, TILE_K,
    )  # fmt: skip
    value_mn = activate(gate_mn, ACTIVATION) * up_mn
    out_mn = out + offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    tl.store(out_mn, value_mn.to(out.dtype.element_ty), mask=mask_m[:, None] & mask_n[None, :])


def gated_mlp(
    x: Tensor,
    gate_weight: Tensor,
    up_weight: Tensor,
    *,
    activation: ActivationName,
    tiles: Tiles | None = None,
) -> Tensor:
    """activation(x @ gate^T) * (x @ up^T), [..., N]; no gradients.

    Args:
        tiles: None takes those kept for this GPU.
    """
    outputs, inputs = gate_weight.shape
    x_mk = x.reshape(-1, inputs).contiguous()
    rows = x_mk.shape[0]
    out = torch.empty((*x.shape[:-1], outputs), dtype=x.dtype, device=x.device)
    product = product_of(rows, gate_weight)
    tiles = tiles or tiles_for(product, x.device)
    _gated_kernel[(triton.cdiv(outputs, tiles.n), triton.cdiv(rows, tiles.m))](
        x_mk, gate_weight.contiguous(), up_weight.contiguous(), out, rows, outputs,
        K=inputs, ACTIVATION=activation, **tiles.constants,
    )  # fmt: skip
    return out


def product_of(rows: int, gate_weight: Tensor) -> Product:
    """What the tiles are chosen by."""
    outputs, inputs = gate_weight.shape
    dtype = str(gate_weight.dtype).removeprefix("torch.")
    return Product(operator="gated_mlp", rows=rows, inputs=inputs, outputs=outputs, dtype=dtype)
