"""Triton: unpack alone, fused into a tiled matrix product, and into the gradient of its input.

Shape suffixes: m rows of x, n output features, k input features, j pairs of input features.
A row's start n * K may exceed 31 bits, its block number does not: only the row's base pointer is
64-bit, all index arithmetic inside a tile is 32-bit.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.tiles import Tiles
from fastvla_core.kernels.triton_parts import activate

from .layout import NESTED_BLOCK, Nf4Weight, level_table


@triton.jit
def _scale(absmax, code, absmax2, offset, index, mask, NESTED: tl.constexpr, BLOCK2: tl.constexpr):
    if NESTED:
        level = tl.load(code + tl.load(absmax + index, mask=mask, other=0).to(tl.int32))
        outer = tl.load(absmax2 + index // BLOCK2, mask=mask, other=0.0)
        scale = level * outer + tl.load(offset)
    else:
        scale = tl.load(absmax + index, mask=mask, other=0.0)
    return scale


@triton.jit
def _dequantize_kernel(
    packed,
    absmax,
    code,
    absmax2,
    offset,
    levels,
    out,
    count,
    BLOCK: tl.constexpr,
    BLOCK2: tl.constexpr,
    NESTED: tl.constexpr,
    BYTES: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BYTES
    byte_index = start + tl.arange(0, BYTES)
    mask = byte_index * 2 < count
    byte = tl.load(packed + byte_index, mask=mask, other=0).to(tl.int32)
    scale = _scale(absmax, code, absmax2, offset, byte_index * 2 // BLOCK, mask, NESTED, BLOCK2)
    high = tl.load(levels + (byte >> 4)) * scale
    low = tl.load(levels + (byte & 15)) * scale
    index = start * 2 + tl.arange(0, 2 * BYTES)
    value = tl.interleave(high, low)
    tl.store(out + index, value.to(out.dtype.element_ty), mask=index < count)


@triton.jit
def _paired_tile(
    packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
    ALIGNED: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """Unpack the even and the odd columns of a tile; K is even, so no byte straddles rows."""
    offs_j = tl.arange(0, TILE_K // 2)
    even_k = k0 + 2 * offs_j
    mask_nj = mask_n[:, None] & (even_k < K)[None, :]
    row_n = packed + start_n // 2
    byte_nj = tl.load(row_n[:, None] + (k0 // 2 + offs_j)[None, :], mask=mask_nj, other=0)
    byte_nj = byte_nj.to(tl.int32)
    first_n = (start_n // BLOCK).to(tl.int32)
    if ALIGNED:
        block_n = first_n + k0 // BLOCK
        scale_n = _scale(absmax, code, absmax2, offset, block_n, mask_n, NESTED, BLOCK2)
        scale_nj = scale_n[:, None]
    else:
        in_block_n = (start_n % BLOCK).to(tl.int32)
        block_nj = first_n[:, None] + (in_block_n[:, None] + even_k[None, :]) // BLOCK
        scale_nj = _scale(absmax, code, absmax2, offset, block_nj, mask_nj, NESTED, BLOCK2)
    even_nj = tl.load(levels + (byte_nj >> 4)) * scale_nj
    odd_nj = tl.load(levels + (byte_nj & 15)) * scale_nj
    return even_nj, odd_nj


@triton.jit
def _straddling_tile(
    packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
    TILE_K: tl.constexpr,
):  # fmt: skip
    """Unpack a tile element by element; K is odd: every second row starts within a byte."""
    offs_k = k0 + tl.arange(0, TILE_K)
    mask_nk = mask_n[:, None] & (offs_k < K)[None, :]
    half_nk = (start_n % 2).to(tl.int32)[:, None] + offs_k[None, :]
    row_n = packed + start_n // 2
    byte_nk = tl.load(row_n[:, None] + half_nk // 2, mask=mask_nk, other=0).to(tl.int32)
    nibble_nk = tl.where(half_nk % 2 == 0, byte_nk >> 4, byte_nk & 15)
    first_n = (start_n // BLOCK).to(tl.int32)
    in_block_n = (start_n % BLOCK).to(tl.int32)
    block_nk = first_n[:, None] + (in_block_n[:, None] + offs_k[None, :]) // BLOCK
    scale_nk = _scale(absmax, code, absmax2, offset, block_nk, mask_nk, NESTED, BLOCK2)
    return tl.load(levels + nibble_nk) * scale_nk


@triton.jit
def _linear_kernel(
    x,
    packed,
    absmax,
    code,
    absmax2,
    offset,
    levels,
    bias,
    out,
    M,
    N,
    stride_xm,
    stride_xk,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK2: tl.constexpr,
    NESTED: tl.constexpr,
    PAIRED: tl.constexpr,
    ALIGNED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    offs_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    mask_m = (offs_m < M)[:, None]
    mask_n = offs_n < N
    start_n = offs_n.to(tl.int64) * K
    x_row = x + offs_m.to(tl.int64)[:, None] * stride_xm
    kind = x.dtype.element_ty
    acc_mn = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)

    for k0 in range(0, K, TILE_K):
        if PAIRED:
            even_k = k0 + 2 * tl.arange(0, TILE_K // 2)
            even_nj, odd_nj = _paired_tile(
                packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
                K, BLOCK, BLOCK2, NESTED, ALIGNED, TILE_K,
            )  # fmt: skip
            mask_mj = mask_m & (even_k < K)[None, :]
            even_mj = tl.load(x_row + even_k[None, :] * stride_xk, mask=mask_mj, other=0.0)
            odd_mj = tl.load(x_row + (even_k + 1)[None, :] * stride_xk, mask=mask_mj, other=0.0)
            even_jn = tl.trans(even_nj.to(kind))
            odd_jn = tl.trans(odd_nj.to(kind))
            acc_mn = tl.dot(even_mj, even_jn, acc_mn, input_precision="ieee")
            acc_mn = tl.dot(odd_mj, odd_jn, acc_mn, input_precision="ieee")
        else:
            offs_k = k0 + tl.arange(0, TILE_K)
            w_nk = _straddling_tile(
                packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
                K, BLOCK, BLOCK2, NESTED, TILE_K,
            )  # fmt: skip
            mask_mk = mask_m & (offs_k < K)[None, :]
            x_mk = tl.load(x_row + offs_k[None, :] * stride_xk, mask=mask_mk, other=0.0)
            acc_mn = tl.dot(x_mk, tl.trans(w_nk.to(kind)), acc_mn, input_precision="ieee")

    if HAS_BIAS:
        acc_mn += tl.load(bias + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
    acc_mn = activate(acc_mn, ACTIVATION)
    out_mn = out + offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    tl.store(out_mn, acc_mn.to(out.dtype.element_ty), mask=mask_m & mask_n[None, :])


@triton.jit
def _gradient_kernel(
    grad, packed, absmax, code, absmax2, offset, levels, out, M, N,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr,
    PAIRED: tl.constexpr, ALIGNED: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """A tile [m, k] of grad @ W: the weight's tile is unpacked as the forward pass does it."""
    k0 = tl.program_id(0) * TILE_K
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    mask_m = (offs_m < M)[:, None]
    grad_row = grad + offs_m.to(tl.int64)[:, None] * N
    kind = grad.dtype.element_ty
    even_mj = tl.zeros((TILE_M, TILE_K // 2), dtype=tl.float32)
    odd_mj = tl.zeros((TILE_M, TILE_K // 2), dtype=tl.float32)
    whole_mk = tl.zeros((TILE_M, TILE_K), dtype=tl.float32)
    for n0 in range(0, N, TILE_N):
        offs_n = n0 + tl.arange(0, TILE_N)
        mask_n = offs_n < N
        start_n = offs_n.to(tl.int64) * K
        grad_mn = tl.load(grad_row + offs_n[None, :], mask=mask_m & mask_n[None, :], other=0.0)
        if PAIRED:
            even_nj, odd_nj = _paired_tile(
                packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
                K, BLOCK, BLOCK2, NESTED, ALIGNED, TILE_K,
            )  # fmt: skip
            even_mj = tl.dot(grad_mn, even_nj.to(kind), even_mj, input_precision="ieee")
            odd_mj = tl.dot(grad_mn, odd_nj.to(kind), odd_mj, input_precision="ieee")
        else:
            w_nk = _straddling_tile(
                packed, absmax, code, absmax2, offset, levels, start_n, mask_n, k0,
                K, BLOCK, BLOCK2, NESTED, TILE_K,
            )  # fmt: skip
            whole_mk = tl.dot(grad_mn, w_nk.to(kind), whole_mk, input_precision="ieee")
    if PAIRED:
        whole_mk = tl.interleave(even_mj, odd_mj)
    offs_k = k0 + tl.arange(0, TILE_K)
    out_mk = out + offs_m.to(tl.int64)[:, None] * K + offs_k[None, :]
    tl.store(out_mk, whole_mk.to(out.dtype.element_ty), mask=mask_m & (offs_k < K)[None, :])


def pick_tiles(rows: int, inputs: int, dtype: torch.dtype) -> Tiles:
    """Choose tiles that keep registers from spilling and shared memory below 48 KiB.

    Checked with ptxas for compute capabilities 8.0 to 12.0; their speed is not measured yet.
    """
    if dtype == torch.float32 or inputs % 2:
        return Tiles(m=16, n=32, k=32, warps=4, stages=1)
    if rows <= 16:
        return Tiles(m=16, n=32, k=64, warps=4, stages=2)
    if rows <= 64:
        return Tiles(m=64, n=32, k=64, warps=4, stages=2)
    return Tiles(m=128, n=32, k=64, warps=8, stages=2)


def dequantize(weight: Nf4Weight, dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
    """Unpack to [N, K]; `out`, if given, is contiguous and of that shape and type."""
    if out is None:
        out = torch.empty(weight.shape, dtype=dtype, device=weight.packed.device)
    count = weight.shape[0] * weight.shape[1]
    bytes_per_program = 1024
    if count:
        _dequantize_kernel[(triton.cdiv(count, 2 * bytes_per_program),)](
            *_weight_arguments(weight),
            out,
            count,
            **_weight_constants(weight),
            BYTES=bytes_per_program,
        )
    return out


def nf4_linear(
    x: Tensor,
    weight: Nf4Weight,
    bias: Tensor | None,
    *,
    activation: ActivationName | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """activation(x @ W^T + bias) by the fused kernel; `out`, if given, is contiguous [rows, N]."""
    outputs, inputs = weight.shape
    x_mk = x.reshape(-1, inputs)
    rows = x_mk.shape[0]
    if out is None:
        out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    tiles = pick_tiles(rows, inputs, x.dtype)
    if rows and outputs:
        _linear_kernel[(triton.cdiv(outputs, tiles.n), triton.cdiv(rows, tiles.m))](
            x_mk,
            *_weight_arguments(weight),
            x_mk if bias is None else bias,
            out,
            rows,
            outputs,
            x_mk.stride(0),
            x_mk.stride(1),
            K=inputs,
            **_weight_constants(weight),
            PAIRED=inputs % 2 == 0,
            ALIGNED=inputs % weight.block == 0 and weight.block % tiles.k == 0,
            HAS_BIAS=bias is not None,
            ACTIVATION=activation or "",
            **tiles.constants,
        )
    return out.view(*x.shape[:-1], outputs)


def input_gradient(grad: Tensor, weight: Nf4Weight, *, out: Tensor | None = None) -> Tensor:
    """grad @ W, [..., N] to [..., K], without an unpacked weight; `out` is contiguous [rows, K]."""
    outputs, inputs = weight.shape
    grad_mn = grad.reshape(-1, outputs).contiguous()
    rows = grad_mn.shape[0]
    if out is None:
        out = torch.empty((rows, inputs), dtype=grad.dtype, device=grad.device)
    tiles = pick_tiles(rows, inputs, grad.dtype)
    if rows:
        _gradient_kernel[(triton.cdiv(inputs, tiles.k), triton.cdiv(rows, tiles.m))](
            grad_mn,
            *_weight_arguments(weight),
            out,
            rows,
            outputs,
            K=inputs,
            **_weight_constants(weight),
            PAIRED=inputs % 2 == 0,
            ALIGNED=inputs % weight.block == 0 and weight.block % tiles.k == 0,
            **tiles.constants,
        )
    return out.view(*grad.shape[:-1], inputs)


def _weight_arguments(weight: Nf4Weight) -> tuple[Tensor, ...]:
    nested = weight.nested
    levels = level_table(weight.packed.device)
    # Without a second level the three slots are never read; any pointer of the right type will do.
    second = (levels,) * 3 if nested is None else (nested.code, nested.absmax, nested.offset)
    return (weight.packed, weight.absmax, *second, levels)


def _weight_constants(weight: Nf4Weight) -> dict[str, int | bool]:
    nested = weight.nested
    return {
        "BLOCK": weight.block,
        "BLOCK2": NESTED_BLOCK if nested is None else nested.block,
        "NESTED": nested is not None,
    }
