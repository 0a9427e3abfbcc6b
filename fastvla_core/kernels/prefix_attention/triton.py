"""Triton: attention to a cached prefix and to own tokens, read where they lie, by block numbers.

The query heads that share a key/value head are rows of one tile, so their keys are read once.
A chunk has few rows: several programs share the keys of one tile of rows, each with a part of
them, and a second launch joins the parts. Shape suffixes: m rows (a query head and a token each),
s keys, d head dimension. Exponentials are to base 2.
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

from .spec import BlockMask, KeyValue

_LOG2_E = 1.0 / math.log(2.0)
# Programs that keep a large GPU busy; a guess from its number of multiprocessors, not measured.
_WANTED_PROGRAMS = 128


@triton.jit
def _over_keys(
    q_md, acc_md, top_m, sum_m, keys, values, stride_k, stride_v, key_blocks, key_mask,
    query_block_m, first, last, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, TILE_S: tl.constexpr,
):  # fmt: skip
    """Take keys `first` to `last` of one memory into the running softmax."""
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < D
    for s0 in range(first, last, TILE_S):
        offs_s = s0 + tl.arange(0, TILE_S)
        inside_s = offs_s < last
        real_s = tl.load(key_mask + offs_s, mask=inside_s, other=0).to(tl.int32) != 0
        block_s = tl.load(key_blocks + offs_s, mask=inside_s, other=0)
        k_ds = tl.load(
            keys + offs_s[None, :] * stride_k + offs_d[:, None],
            mask=mask_d[:, None] & inside_s[None, :],
            other=0.0,
        )
        score_ms = tl.dot(q_md, k_ds, input_precision="ieee") * scale
        seen_ms = (inside_s & real_s)[None, :] & (block_s[None, :] <= query_block_m[:, None])
        score_ms = tl.where(seen_ms, score_ms, float("-inf"))
        new_m = tl.maximum(top_m, tl.max(score_ms, axis=1))
        # A row that has seen nothing yet has no finite maximum; nothing times one is nothing.
        base_m = tl.where(new_m == float("-inf"), 0.0, new_m)
        weight_ms = tl.exp2(score_ms - base_m[:, None])
        shrink_m = tl.exp2(top_m - base_m)
        sum_m = sum_m * shrink_m + tl.sum(weight_ms, axis=1)
        v_sd = tl.load(
            values + offs_s[:, None] * stride_v + offs_d[None, :],
            mask=inside_s[:, None] & mask_d[None, :],
            other=0.0,
        )
        acc_md = tl.dot(
            weight_ms.to(v_sd.dtype), v_sd, acc_md * shrink_m[:, None], input_precision="ieee"
        )
        top_m = new_m
    return acc_md, top_m, sum_m


@triton.jit
def _attend_kernel(
    q, prefix_k, prefix_v, own_k, own_v, query_blocks, key_blocks, key_mask, out, lse, parts,
    tokens, prefix_keys, own_keys, keys_per_split,
    stride_qb, stride_qh, stride_qt, stride_pkb, stride_pkg, stride_pks,
    stride_pvb, stride_pvg, stride_pvs, stride_okb, stride_okg, stride_oks,
    stride_ovb, stride_ovg, stride_ovs, scale,
    GROUPS: tl.constexpr, SHARED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    HAS_PREFIX: tl.constexpr, SPLITS: tl.constexpr, TILE_M: tl.constexpr, TILE_S: tl.constexpr,
):  # fmt: skip
    rows = SHARED * tokens
    offs_m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    mask_m = offs_m < rows
    split = tl.program_id(1)
    b = (tl.program_id(2) // GROUPS).to(tl.int64)
    g = tl.program_id(2) % GROUPS
    token_m = offs_m % tokens
    head_m = g * SHARED + offs_m // tokens
    offs_d = tl.arange(0, BLOCK_D)
    mask_md = mask_m[:, None] & (offs_d < D)[None, :]
    q_row = q + b * stride_qb + head_m.to(tl.int64) * stride_qh + token_m * stride_qt
    q_md = tl.load(q_row[:, None] + offs_d[None, :], mask=mask_md, other=0.0)
    query_block_m = tl.load(query_blocks + token_m, mask=mask_m, other=0)
    acc_md = tl.zeros((TILE_M, BLOCK_D), dtype=tl.float32)
    top_m = tl.full((TILE_M,), float("-inf"), dtype=tl.float32)
    sum_m = tl.zeros((TILE_M,), dtype=tl.float32)
    first = split * keys_per_split
    last = tl.minimum(first + keys_per_split, prefix_keys + own_keys)
    mask_row = key_mask + b * (prefix_keys + own_keys)
    if HAS_PREFIX:
        acc_md, top_m, sum_m = _over_keys(
            q_md, acc_md, top_m, sum_m,
            prefix_k + b * stride_pkb + g * stride_pkg, prefix_v + b * stride_pvb + g * stride_pvg,
            stride_pks, stride_pvs, key_blocks, mask_row, query_block_m,
            first, tl.minimum(last, prefix_keys), scale, D, BLOCK_D, TILE_S,
        )  # fmt: skip
    acc_md, top_m, sum_m = _over_keys(
        q_md, acc_md, top_m, sum_m,
        own_k + b * stride_okb + g * stride_okg, own_v + b * stride_ovb + g * stride_ovg,
        stride_oks, stride_ovs, key_blocks + prefix_keys, mask_row + prefix_keys, query_block_m,
        tl.maximum(first, prefix_keys) - prefix_keys, last - prefix_keys, scale,
        D, BLOCK_D, TILE_S,
    )  # fmt: skip
    row_m = tl.program_id(2).to(tl.int64) * rows + offs_m
    if SPLITS == 1:
        # A row that sees nothing is against the contract; it gives zeros rather than NaN.
        total_m = tl.where(sum_m > 0, sum_m, 1.0)
        out_md = out + row_m[:, None] * D + offs_d[None, :]
        tl.store(out_md, (acc_md / total_m[:, None]).to(out.dtype.element_ty), mask=mask_md)
        tl.store(lse + row_m, top_m + tl.log2(total_m), mask=mask_m)
    else:
        part_m = (row_m * SPLITS + split) * (D + 2)
        tl.store(parts + part_m[:, None] + offs_d[None, :], acc_md, mask=mask_md)
        tl.store(parts + part_m + D, top_m, mask=mask_m)
        tl.store(parts + part_m + D + 1, sum_m, mask=mask_m)


@triton.jit
def _join_kernel(
    parts, out, lse, D: tl.constexpr, BLOCK_D: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offs_p = tl.arange(0, BLOCK_SPLITS)
    offs_d = tl.arange(0, BLOCK_D)
    mask_p = offs_p < SPLITS
    part_p = parts + (row * SPLITS + offs_p) * (D + 2)
    top_p = tl.load(part_p + D, mask=mask_p, other=float("-inf"))
    sum_p = tl.load(part_p + D + 1, mask=mask_p, other=0.0)
    top = tl.max(top_p, axis=0)
    weight_p = tl.exp2(top_p - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(weight_p * sum_p, axis=0)
    total = tl.where(total > 0, total, 1.0)
    acc_pd = tl.load(
        part_p[:, None] + offs_d[None, :], mask=mask_p[:, None] & (offs_d < D)[None, :], other=0.0
    )
    mixed_d = tl.sum(acc_pd * weight_p[:, None], axis=0) / total
    tl.store(out + row * D + offs_d, mixed_d.to(out.dtype.element_ty), mask=offs_d < D)
    tl.store(lse + row, top + tl.log2(total))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTiles:
    """Rows and keys of a tile, parts that the keys are cut into, warps and stages."""

    m: int
    s: int
    splits: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernel and its launch take them."""
        return {
            "TILE_M": self.m,
            "TILE_S": self.s,
            "SPLITS": self.splits,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def pick_tiles(
    *, rows: int, keys: int, pairs: int, head_dim: int, dtype: torch.dtype
) -> AttentionTiles:
    """Choose tiles by shape; checked with ptxas for shared memory, their speed is not measured.

    Args:
        rows: Query rows that share a key/value head.
        keys: Of prefix and own tokens.
        pairs: Samples times key/value heads.
        head_dim: d.
        dtype: Of the queries.
    """
    wide = head_dim > 128
    if dtype == torch.float32:
        m, s, warps, stages = (16, 16, 4, 1) if wide else (32, 32, 4, 1)
    else:
        m = 16 if rows <= 16 else 32 if wide else 64
        s, warps, stages = 32, 8 if m > 32 else 4, 1
    programs = pairs * -(-rows // m)
    splits = max(1, min(_WANTED_PROGRAMS // programs, keys // (2 * s), 16))
    return AttentionTiles(m=m, s=s, splits=splits, warps=warps, stages=stages)


def attend(
    q_bhtd: Tensor,
    own: KeyValue,
    mask: BlockMask,
    prefix: KeyValue | None = None,
    *,
    splits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The mixed values [b, h, t, d], and the logarithm (base 2) of the softmax' sums [b, h, t].

    Args:
        mask: Over the keys of the prefix, then the own ones.
        splits: Parts that the keys are cut into; None chooses.
    """
    b, h, t, d = q_bhtd.shape
    groups = own.key_bgsd.shape[1]
    shared, own_keys = h // groups, own.key_bgsd.shape[2]
    prefix_keys = 0 if prefix is None else prefix.key_bgsd.shape[2]
    tiles = pick_tiles(
        rows=shared * t, keys=prefix_keys + own_keys, pairs=b * groups, head_dim=d,
        dtype=q_bhtd.dtype,
    )  # fmt: skip
    constants = tiles.constants | ({} if splits is None else {"SPLITS": splits})
    splits = int(constants["SPLITS"])
    per_split = triton.cdiv(triton.cdiv(prefix_keys + own_keys, splits), tiles.s) * tiles.s
    out = q_bhtd.new_empty((b, h, t, d))
    lse = torch.empty((b, h, t), dtype=torch.float32, device=out.device)
    parts = lse if splits == 1 else lse.new_empty((b * h * t, splits, d + 2))
    q, first, second = (_dense_rows(x) for x in (q_bhtd, own.key_bgsd, own.value_bgsd))
    before = (first, second)
    if prefix is not None:
        before = (_dense_rows(prefix.key_bgsd), _dense_rows(prefix.value_bgsd))
    strides = [s for x in (q, *before, first, second) for s in x.stride()[:3]]
    block_d = max(16, triton.next_power_of_2(d))
    _attend_kernel[(triton.cdiv(shared * t, tiles.m), splits, b * groups)](
        q, *before, first, second, mask.query_blocks_t.contiguous(),
        mask.key_blocks_s.contiguous(), mask.key_mask_bs.expand(b, -1).contiguous(),
        out, lse, parts, t, prefix_keys, own_keys, per_split, *strides, d**-0.5 * _LOG2_E,
        GROUPS=groups, SHARED=shared, D=d, BLOCK_D=block_d, HAS_PREFIX=prefix is not None,
        **constants,
    )  # fmt: skip
    if splits > 1:
        _join_kernel[(b * h * t,)](
            parts, out, lse, D=d, BLOCK_D=block_d, SPLITS=splits,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
        )  # fmt: skip
    return out, lse


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
