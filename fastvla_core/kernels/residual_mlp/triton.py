"""Triton: a block of the residual MLP in one launch, and the gradient of its norm.

A program normalises its rows of x as it reads them for the product; the mean and the spread come
from two passes over the rows before. Shape suffixes: m rows, n output features, k input features.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastvla_core.kernels.tiles import product_tiles

_ROWS_PER_PROGRAM = 8
_MAX_PARTS = 256


@triton.jit
def _mean_and_rstd(x_row, mask_m, eps, K: tl.constexpr, TILE_M: tl.constexpr, TILE_K: tl.constexpr):
    total_m = tl.zeros((TILE_M,), dtype=tl.float32)
    for k0 in range(0, K, TILE_K):
        offs_k = k0 + tl.arange(0, TILE_K)
        mask_mk = mask_m[:, None] & (offs_k < K)[None, :]
        x_mk = tl.load(x_row + offs_k[None, :], mask=mask_mk, other=0.0).to(tl.float32)
        total_m += tl.sum(x_mk, axis=1)
    mean_m = total_m / K
    square_m = tl.zeros((TILE_M,), dtype=tl.float32)
    for k0 in range(0, K, TILE_K):
        offs_k = k0 + tl.arange(0, TILE_K)
        mask_mk = mask_m[:, None] & (offs_k < K)[None, :]
        x_mk = tl.load(x_row + offs_k[None, :], mask=mask_mk, other=0.0).to(tl.float32)
        centred_mk = tl.where(mask_mk, x_mk - mean_m[:, None], 0.0)
        square_m += tl.sum(centred_mk * centred_mk, axis=1)
    return mean_m, 1.0 / tl.sqrt(square_m / K + eps)


@triton.jit
def _block_kernel(
    x, norm_weight, norm_bias, weight, bias, out, active, mean, rstd, M, N, eps,
    K: tl.constexpr, ADDS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    offs_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    mask_m = offs_m < M
    mask_n = offs_n < N
    mask_mn = mask_m[:, None] & mask_n[None, :]
    x_row = x + offs_m.to(tl.int64)[:, None] * K
    w_row = weight + offs_n.to(tl.int64)[None, :] * K
    mean_m, rstd_m = _mean_and_rstd(x_row, mask_m, eps, K, TILE_M, TILE_K)
    acc_mn = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for k0 in range(0, K, TILE_K):
        offs_k = k0 + tl.arange(0, TILE_K)
        mask_k = offs_k < K
        x_mk = tl.load(x_row + offs_k[None, :], mask=mask_m[:, None] & mask_k[None, :], other=0.0)
        scale_k = tl.load(norm_weight + offs_k, mask=mask_k, other=0.0).to(tl.float32)
        shift_k = tl.load(norm_bias + offs_k, mask=mask_k, other=0.0).to(tl.float32)
        unit_mk = (x_mk.to(tl.float32) - mean_m[:, None]) * rstd_m[:, None]
        # Beyond K scale and shift are 0, and so is the product.
        normed_mk = (unit_mk * scale_k[None, :] + shift_k[None, :]).to(x_mk.dtype)
        w_kn = tl.load(w_row + offs_k[:, None], mask=mask_k[:, None] & mask_n[None, :], other=0.0)
        acc_mn = tl.dot(normed_mk, w_kn, acc_mn, input_precision="ieee")
    acc_mn += tl.load(bias + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
    here_mn = offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    tl.store(active + here_mn, (acc_mn > 0).to(tl.int8), mask=mask_mn)
    result_mn = tl.maximum(acc_mn, 0.0)
    if ADDS:
        result_mn += tl.load(x + here_mn, mask=mask_mn, other=0.0).to(tl.float32)
    tl.store(out + here_mn, result_mn.to(out.dtype.element_ty), mask=mask_mn)
    if tl.program_id(0) == 0:
        tl.store(mean + offs_m, mean_m, mask=mask_m)
        tl.store(rstd + offs_m, rstd_m, mask=mask_m)


@triton.jit
def _norm_gradient_kernel(
    x, norm_weight, norm_bias, mean, rstd, grad_normed, grad_out, grad_x, normed,
    part_weight, part_bias, rows, rows_per_part,
    K: tl.constexpr, ADDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < K
    scale = tl.load(norm_weight + cols, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + cols, mask=mask, other=0.0).to(tl.float32)
    sum_weight = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_bias = tl.zeros((BLOCK,), dtype=tl.float32)
    count = tl.minimum(rows_per_part, rows - tl.program_id(0) * rows_per_part)
    for index in range(count):
        row = part * rows_per_part + index
        here = row * K + cols
        inverse = tl.load(rstd + row)
        value = tl.load(x + here, mask=mask, other=0.0).to(tl.float32)
        unit = tl.where(mask, (value - tl.load(mean + row)) * inverse, 0.0)
        grad = tl.load(grad_normed + here, mask=mask, other=0.0).to(tl.float32)
        scaled = grad * scale
        along = tl.sum(scaled * unit, axis=0) / K
        pull = inverse * (scaled - tl.sum(scaled, axis=0) / K - unit * along)
        if ADDS:
            pull += tl.load(grad_out + here, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x + here, pull.to(grad_x.dtype.element_ty), mask=mask)
        tl.store(normed + here, (unit * scale + shift).to(normed.dtype.element_ty), mask=mask)
        sum_weight += grad * unit
        sum_bias += grad
    tl.store(part_weight + part * K + cols, sum_weight, mask=mask)
    tl.store(part_bias + part * K + cols, sum_bias, mask=mask)


class ResidualBlock(torch.autograd.Function):
    """(x [..., k], norm weight, norm bias, weight [n, k], bias [n], eps, adds) to [..., n]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        adds: bool,
    ) -> Tensor:
        outputs, inputs = weight.shape
        x, weight = x.contiguous(), weight.contiguous()
        rows = x.numel() // inputs
        out = x.new_empty((*x.shape[:-1], outputs))
        active = torch.empty((rows, outputs), dtype=torch.int8, device=x.device)
        mean, rstd = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
        tiles = product_tiles(rows, x.dtype)
        _block_kernel[(triton.cdiv(outputs, tiles.n), triton.cdiv(rows, tiles.m))](
            x, norm_weight, norm_bias, weight, bias, out, active, mean, rstd,
            rows, outputs, eps, K=inputs, ADDS=adds, **tiles.constants,
        )  # fmt: skip
        ctx.save_for_backward(x, norm_weight, norm_bias, weight, active, mean, rstd)
        ctx.adds, ctx.bias_dtype = adds, bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight, active, mean, rstd = ctx.saved_tensors
        outputs, inputs = weight.shape
        grad = grad.contiguous()
        opened_mn = grad.view(-1, outputs) * active
        grad_normed = opened_mn @ weight
        grad_x, normed_mk = torch.empty_like(x), torch.empty_like(grad_normed)
        rows = len(opened_mn)
        rows_per_part = max(_ROWS_PER_PROGRAM, triton.cdiv(rows, _MAX_PARTS))
        parts = triton.cdiv(rows, rows_per_part)
        sums = torch.empty((2, parts, inputs), dtype=torch.float32, device=x.device)
        block = triton.next_power_of_2(inputs)
        _norm_gradient_kernel[(parts,)](
            x, norm_weight, norm_bias, mean, rstd, grad_normed, grad, grad_x, normed_mk,
            sums[0], sums[1], rows, rows_per_part,
            K=inputs, ADDS=ctx.adds, BLOCK=block, num_warps=4 if block <= 2048 else 8,
        )  # fmt: skip
        return (
            grad_x,
            sums[0].sum(0).to(norm_weight.dtype),
            sums[1].sum(0).to(norm_bias.dtype),
            opened_mn.mT @ normed_mk,
            opened_mn.sum(0, dtype=torch.float32).to(ctx.bias_dtype),
            None,
            None,
        )
