"""Triton: attention whose mask hides keys only, with its gradient, and the gated way back.

The forward pass is that of `prefix_attention` with one block; the backward pass computes the
weights again from the logarithm of the softmax' sums. Query heads that share a key/value head are
rows of one matrix. Shape suffixes: m rows (a query head and a token each), s keys, d head
dimension, n output features. Exponentials are to base 2.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastvla_core.kernels.prefix_attention import KeyValue, block_mask
from fastvla_core.kernels.prefix_attention import triton as prefix_attention
from fastvla_core.kernels.tiles import product_tiles
from fastvla_core.kernels.triton_parts import one_product

_LOG2_E = 1.0 / math.log(2.0)


@triton.jit
def _weights_and_pull(q_md, grad_md, lse_m, delta_m, k_sd, v_sd, seen_ms, scale):
    """The softmax' weights, and the derivative by the scores, of one tile."""
    score_ms = tl.dot(q_md, tl.trans(k_sd), input_precision="ieee") * scale
    weight_ms = tl.where(seen_ms, tl.exp2(score_ms - lse_m[:, None]), 0.0)
    grad_ms = tl.dot(grad_md, tl.trans(v_sd), input_precision="ieee")
    return weight_ms, weight_ms * (grad_ms - delta_m[:, None])


@triton.jit
def _query_gradient_kernel(
    q, k, v, key_mask, grad, lse, delta, grad_q, rows, keys, scale, inverse_root,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    TILE_M: tl.constexpr, TILE_S: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1).to(tl.int64)
    offs_m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    offs_d = tl.arange(0, BLOCK_D)
    mask_m = offs_m < rows
    mask_d = offs_d < D
    mask_md = mask_m[:, None] & mask_d[None, :]
    here_md = (pair * rows + offs_m)[:, None] * D + offs_d[None, :]
    q_md = tl.load(q + here_md, mask=mask_md, other=0.0)
    grad_md = tl.load(grad + here_md, mask=mask_md, other=0.0)
    lse_m = tl.load(lse + pair * rows + offs_m, mask=mask_m, other=0.0)
    delta_m = tl.load(delta + pair * rows + offs_m, mask=mask_m, other=0.0)
    acc_md = tl.zeros((TILE_M, BLOCK_D), dtype=tl.float32)
    mask_row = key_mask + pair // GROUPS * keys
    for s0 in range(0, keys, TILE_S):
        offs_s = s0 + tl.arange(0, TILE_S)
        inside_s = offs_s < keys
        real_s = tl.load(mask_row + offs_s, mask=inside_s, other=0).to(tl.int32) != 0
        there_sd = (pair * keys + offs_s)[:, None] * D + offs_d[None, :]
        mask_sd = inside_s[:, None] & mask_d[None, :]
        k_sd = tl.load(k + there_sd, mask=mask_sd, other=0.0)
        v_sd = tl.load(v + there_sd, mask=mask_sd, other=0.0)
        seen_ms = mask_m[:, None] & (inside_s & real_s)[None, :]
        _, pull_ms = _weights_and_pull(q_md, grad_md, lse_m, delta_m, k_sd, v_sd, seen_ms, scale)
        acc_md = tl.dot(pull_ms.to(k_sd.dtype), k_sd, acc_md, input_precision="ieee")
    result_md = acc_md * inverse_root
    tl.store(grad_q + here_md, result_md.to(grad_q.dtype.element_ty), mask=mask_md)


@triton.jit
def _memory_gradient_kernel(
    q, k, v, key_mask, grad, lse, delta, grad_k, grad_v, rows, keys, scale, inverse_root,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    TILE_M: tl.constexpr, TILE_S: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1).to(tl.int64)
    offs_s = tl.program_id(0) * TILE_S + tl.arange(0, TILE_S)
    offs_d = tl.arange(0, BLOCK_D)
    inside_s = offs_s < keys
    mask_d = offs_d < D
    mask_sd = inside_s[:, None] & mask_d[None, :]
    there_sd = (pair * keys + offs_s)[:, None] * D + offs_d[None, :]
    k_sd = tl.load(k + there_sd, mask=mask_sd, other=0.0)
    v_sd = tl.load(v + there_sd, mask=mask_sd, other=0.0)
    real_s = tl.load(key_mask + pair // GROUPS * keys + offs_s, mask=inside_s, other=0)
    real_s = inside_s & (real_s.to(tl.int32) != 0)
    acc_k_sd = tl.zeros((TILE_S, BLOCK_D), dtype=tl.float32)
    acc_v_sd = tl.zeros((TILE_S, BLOCK_D), dtype=tl.float32)
    for m0 in range(0, rows, TILE_M):
        offs_m = m0 + tl.arange(0, TILE_M)
        mask_m = offs_m < rows
        mask_md = mask_m[:, None] & mask_d[None, :]
        here_md = (pair * rows + offs_m)[:, None] * D + offs_d[None, :]
        q_md = tl.load(q + here_md, mask=mask_md, other=0.0)
        grad_md = tl.load(grad + here_md, mask=mask_md, other=0.0)
        lse_m = tl.load(lse + pair * rows + offs_m, mask=mask_m, other=0.0)
        delta_m = tl.load(delta + pair * rows + offs_m, mask=mask_m, other=0.0)
        seen_ms = mask_m[:, None] & real_s[None, :]
        weight_ms, pull_ms = _weights_and_pull(
            q_md, grad_md, lse_m, delta_m, k_sd, v_sd, seen_ms, scale
        )
        kind = q_md.dtype
        acc_v_sd = tl.dot(tl.trans(weight_ms.to(kind)), grad_md, acc_v_sd, input_precision="ieee")
        acc_k_sd = tl.dot(tl.trans(pull_ms.to(kind)), q_md, acc_k_sd, input_precision="ieee")
    tl.store(grad_v + there_sd, acc_v_sd.to(grad_v.dtype.element_ty), mask=mask_sd)
    result_sd = acc_k_sd * inverse_root
    tl.store(grad_k + there_sd, result_sd.to(grad_k.dtype.element_ty), mask=mask_sd)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardTiles:
    """Rows and keys of a tile, and warps."""

    m: int
    s: int
    warps: int

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernels and their launches take them."""
        return {"TILE_M": self.m, "TILE_S": self.s, "num_warps": self.warps, "num_stages": 1}


def pick_tiles(*, head_dim: int, dtype: torch.dtype) -> BackwardTiles:
    """Choose tiles by the size of a head; checked with ptxas, their speed is not measured."""
    if dtype == torch.float32 or head_dim > 128:
        return BackwardTiles(m=16, s=16, warps=4)
    return BackwardTiles(m=32, s=32, warps=4)


class CrossAttention(torch.autograd.Function):
    """(q [b, h, t, d], k and v [b, g, s, d], mask [b, s]) to [b, h, t, d]."""

    @staticmethod
    def forward(
        ctx: Any, q_bhtd: Tensor, key_bgsd: Tensor, value_bgsd: Tensor, key_mask_bs: Tensor
    ) -> Tensor:
        b, t = q_bhtd.shape[0], q_bhtd.shape[2]
        keys = key_bgsd.shape[2]
        mask_bs = key_mask_bs.expand(b, -1).contiguous()
        one = torch.zeros(1, dtype=torch.long, device=q_bhtd.device)
        mask = block_mask(one.expand(t), one.expand(keys), mask_bs)
        out, lse = prefix_attention.attend(q_bhtd, KeyValue(key_bgsd, value_bgsd), mask)
        ctx.save_for_backward(q_bhtd, key_bgsd, value_bgsd, mask_bs, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask_bs, out, lse = ctx.saved_tensors
        q, k, v, grad = (x.contiguous() for x in (q, k, v, grad))
        b, h, t, d = q.shape
        groups, keys = k.shape[1:3]
        rows = h // groups * t
        delta = (grad.float() * out.float()).sum(-1)
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        tiles = pick_tiles(head_dim=d, dtype=q.dtype)
        block_d = max(16, triton.next_power_of_2(d))
        sizes = {"GROUPS": groups, "D": d, "BLOCK_D": block_d, **tiles.constants}
        scales = (d**-0.5 * _LOG2_E, d**-0.5)
        _query_gradient_kernel[(triton.cdiv(rows, tiles.m), b * groups)](
            q, k, v, mask_bs, grad, lse, delta, grad_q, rows, keys, *scales, **sizes
        )
        _memory_gradient_kernel[(triton.cdiv(keys, tiles.s), b * groups)](
            q, k, v, mask_bs, grad, lse, delta, grad_k, grad_v, rows, keys, *scales, **sizes
        )
        return grad_q, grad_k, grad_v, None


@triton.jit
def _gated_kernel(
    x, hidden, weight, bias, gate, out, M, N,
    K: tl.constexpr, HAS_BIAS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    offs_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    offs_m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    mask_m = offs_m < M
    mask_n = offs_n < N
    mask_mn = mask_m[:, None] & mask_n[None, :]
    value_mn = one_product(
        hidden + offs_m.to(tl.int64)[:, None] * K, weight + offs_n.to(tl.int64)[None, :] * K,
        mask_m, mask_n, K, TILE_M, TILE_N, TILE_K,
    )  # fmt: skip
    if HAS_BIAS:
        value_mn += tl.load(bias + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
    # tanh(g) = 2 sigmoid(2 g) - 1
    opened = 2.0 * tl.sigmoid(2.0 * tl.load(gate).to(tl.float32)) - 1.0
    here_mn = offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    x_mn = tl.load(x + here_mn, mask=mask_mn, other=0.0).to(tl.float32)
    tl.store(out + here_mn, (x_mn + opened * value_mn).to(out.dtype.element_ty), mask=mask_mn)


class GatedProjection(torch.autograd.Function):
    """(x [..., n], hidden [..., k], weight [n, k], bias, gate of one element) to [..., n].

    The backward pass is matrix products: the gate's gradient needs no product of its own, since
    sum(dy * (hidden @ W^T)) = sum((dy @ W) * hidden).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor
    ) -> Tensor:
        outputs, inputs = weight.shape
        x, weight = x.contiguous(), weight.contiguous()
        hidden_mk = hidden.reshape(-1, inputs).contiguous()
        rows = hidden_mk.shape[0]
        out = torch.empty_like(x)
        tiles = product_tiles(rows, x.dtype)
        _gated_kernel[(triton.cdiv(outputs, tiles.n), triton.cdiv(rows, tiles.m))](
            x, hidden_mk, weight, x if bias is None else bias, gate, out, rows, outputs,
            K=inputs, HAS_BIAS=bias is not None, **tiles.constants,
        )  # fmt: skip
        ctx.save_for_backward(hidden, weight, bias, gate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, gate = ctx.saved_tensors
        outputs, inputs = weight.shape
        rows_mn, hidden_mk = grad.reshape(-1, outputs), hidden.reshape(-1, inputs)
        opened = gate.float().tanh()
        back_mk = rows_mn @ weight
        summed_n = rows_mn.sum(0, dtype=torch.float32)
        grad_gate = (back_mk.float() * hidden_mk.float()).sum()
        if bias is not None:
            grad_gate = grad_gate + summed_n @ bias.float()
        grad_gate = (1 - opened.square()) * grad_gate
        return (
            grad,
            (opened * back_mk.float()).to(hidden.dtype).view(hidden.shape),
            (opened * (rows_mn.mT @ hidden_mk).float()).to(weight.dtype),
            None if bias is None else (opened * summed_n).to(bias.dtype),
            grad_gate.to(gate.dtype),
        )
