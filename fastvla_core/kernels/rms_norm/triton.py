"""Triton: residual addition and normalisation in one pass over the rows, and its gradient.

Rows come in groups that share a factor, a shift and a gate: the tokens of a sample where the norm
is adaptive, all rows where it is not. Everything is computed in float32 and rounded once.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS_PER_PROGRAM = 8
_MAX_PARTS = 256


@triton.jit
def _forward_kernel(
    x, branch, gate, factor, shift, total, out, rstd,
    rows_per_group, stride_gate, stride_factor, stride_shift, eps, offset,
    D: tl.constexpr, ADDS: tl.constexpr, GATED: tl.constexpr, SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    group = row // rows_per_group
    cols = tl.arange(0, BLOCK)
    mask = cols < D
    here = row * D + cols
    value = tl.load(x + here, mask=mask, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(branch + here, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            added *= tl.load(gate + group * stride_gate + cols, mask=mask, other=0.0).to(tl.float32)
        rounded = (value + added).to(total.dtype.element_ty)
        tl.store(total + here, rounded, mask=mask)
        value = rounded.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / D + eps)
    tl.store(rstd + row, inverse)
    scale = offset + tl.load(factor + group * stride_factor + cols, mask=mask, other=0.0).to(
        tl.float32
    )
    result = value * inverse * scale
    if SHIFTED:
        moved = tl.load(shift + group * stride_shift + cols, mask=mask, other=0.0)
        result += moved.to(tl.float32)
    tl.store(out + here, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    total, branch, gate, factor, rstd, grad_total, grad_out,
    grad_x, grad_branch, part_gate, part_factor, part_shift,
    rows_per_group, rows_per_part, stride_gate, stride_factor, offset,
    D: tl.constexpr, ADDS: tl.constexpr, GATED: tl.constexpr, SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    part = group * tl.num_programs(0) + tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < D
    scale = offset + tl.load(factor + group * stride_factor + cols, mask=mask, other=0.0).to(
        tl.float32
    )
    if GATED:
        opened = tl.load(gate + group * stride_gate + cols, mask=mask, other=0.0).to(tl.float32)
    sum_gate = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_factor = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_shift = tl.zeros((BLOCK,), dtype=tl.float32)
    first = tl.program_id(0) * rows_per_part
    last = tl.minimum(first + rows_per_part, rows_per_group)
    for index in range(first, last):
        row = group * rows_per_group + index
        here = row * D + cols
        inverse = tl.load(rstd + row)
        unit = tl.load(total + here, mask=mask, other=0.0).to(tl.float32) * inverse
        grad = tl.load(grad_out + here, mask=mask, other=0.0).to(tl.float32)
        scaled = grad * scale
        pull = inverse * (scaled - unit * (tl.sum(scaled * unit, axis=0) / D))
        if ADDS:
            pull += tl.load(grad_total + here, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x + here, pull.to(grad_x.dtype.element_ty), mask=mask)
        if GATED:
            tl.store(
                grad_branch + here, (pull * opened).to(grad_branch.dtype.element_ty), mask=mask
            )
            sum_gate += pull * tl.load(branch + here, mask=mask, other=0.0).to(tl.float32)
        sum_factor += grad * unit
        sum_shift += grad
    tl.store(part_factor + part * D + cols, sum_factor, mask=mask)
    if GATED:
        tl.store(part_gate + part * D + cols, sum_gate, mask=mask)
    if SHIFTED:
        tl.store(part_shift + part * D + cols, sum_shift, mask=mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rows of a tensor are grouped, and what is done to them.

    Attributes:
        rows, groups, width: Sizes; `groups` divides `rows`.
        adds, gated, shifted: Whether there is a branch, a gate, a shift.
    """

    rows: int
    groups: int
    width: int
    adds: bool
    gated: bool
    shifted: bool

    @property
    def constants(self) -> dict[str, Any]:
        """What the kernels are compiled for."""
        block = triton.next_power_of_2(self.width)
        return {
            "D": self.width,
            "ADDS": self.adds,
            "GATED": self.gated,
            "SHIFTED": self.shifted,
            "BLOCK": block,
            "num_warps": 4 if block <= 2048 else 8,
        }


def _per_group(values: Tensor | None, missing: Tensor) -> tuple[Tensor, int]:
    """A tensor [groups, d] or [d] for the kernel, and its stride; `missing` is never read."""
    if values is None:
        return missing, 0
    values = values if values.stride(-1) == 1 else values.contiguous()
    return values, values.stride(0) if values.ndim > 1 else 0


class RmsNorm(torch.autograd.Function):
    """(x, branch, gate, factor, shift) to the normalised sum, and the sum where there is a branch.

    x, branch: [..., d]. gate, shift: [groups, d] or None; factor: [groups, d], or [d] for one
    group. The leading rows of x fall into as many equal groups.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        gate: Tensor | None,
        factor: Tensor,
        shift: Tensor | None,
        eps: float,
        offset: float,
    ) -> Tensor | tuple[Tensor, Tensor]:
        x = x.contiguous()
        branch = None if branch is None else branch.contiguous()
        width = x.shape[-1]
        layout = Rows(
            rows=x.numel() // width,
            groups=1 if factor.ndim == 1 else factor.shape[0],
            width=width,
            adds=branch is not None,
            gated=gate is not None,
            shifted=shift is not None,
        )
        out = torch.empty_like(x)
        total = x if branch is None else torch.empty_like(x)
        rstd = torch.empty(layout.rows, dtype=torch.float32, device=x.device)
        gates, stride_gate = _per_group(gate, x)
        factors, stride_factor = _per_group(factor, x)
        shifts, stride_shift = _per_group(shift, x)
        _forward_kernel[(layout.rows,)](
            x, x if branch is None else branch, gates, factors, shifts, total, out, rstd,
            layout.rows // layout.groups, stride_gate, stride_factor, stride_shift,
            eps, offset, **layout.constants,
        )  # fmt: skip
        ctx.save_for_backward(total, branch if layout.gated else None, gate, factor, rstd)
        ctx.layout, ctx.offset = layout, offset
        ctx.shift_dtype = None if shift is None else shift.dtype
        return out if branch is None else (total, out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout: Rows = ctx.layout
        total, branch, gate, factor, rstd = ctx.saved_tensors
        grad_out = grads[-1].contiguous()
        grad_total = grads[0].contiguous()
        grad_x = torch.empty_like(total)
        grad_branch = torch.empty_like(total) if layout.gated else grad_x
        per_group = layout.rows // layout.groups
        rows_per_part = max(_ROWS_PER_PROGRAM, triton.cdiv(per_group, _MAX_PARTS))
        parts = triton.cdiv(per_group, rows_per_part)
        sums = torch.empty(
            (3, layout.groups, parts, layout.width), dtype=torch.float32, device=total.device
        )
        gates, stride_gate = _per_group(gate, total)
        factors, stride_factor = _per_group(factor, total)
        _backward_kernel[(parts, layout.groups)](
            total, total if branch is None else branch, gates, factors, rstd,
            grad_total, grad_out, grad_x, grad_branch, sums[0], sums[1], sums[2],
            per_group, rows_per_part, stride_gate, stride_factor, ctx.offset,
            **layout.constants,
        )  # fmt: skip
        grad_gate = sums[0].sum(1).to(gate.dtype) if layout.gated else None
        grad_factor = sums[1].sum(1).view(factor.shape).to(factor.dtype)
        grad_shift = sums[2].sum(1).to(ctx.shift_dtype) if layout.shifted else None
        return (
            grad_x,
            grad_branch if layout.adds else None,
            grad_gate,
            grad_factor,
            grad_shift,
            None,
            None,
        )
