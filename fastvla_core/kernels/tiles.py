"""Tile sizes for matrix products with an epilogue: small enough for every GPU we name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Tile sizes of one launch; powers of two, at least 16 by 16 by 32."""

    m: int
    n: int
    k: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, Any]:
        """As a kernel and its launch take them."""
        return {
            "TILE_M": self.m,
            "TILE_N": self.n,
            "TILE_K": self.k,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def product_tiles(rows: int, dtype: torch.dtype) -> Tiles:
    """Choose tiles for x [rows, K] times a weight, with two accumulators of m by n.

    Checked with ptxas for compute capabilities 8.0 to 10.0 (no spills, at most 48 KiB of shared
    memory); their speed is not measured.
    """
    if dtype == torch.float32:
        return Tiles(m=16, n=32, k=32, warps=4, stages=1)
    if rows <= 16:
        return Tiles(m=16, n=32, k=64, warps=4, stages=2)
    if rows <= 64:
        return Tiles(m=64, n=32, k=64, warps=4, stages=2)
    return Tiles(m=64, n=64, k=32, warps=8, stages=2)
