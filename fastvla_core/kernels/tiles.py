"""Tile sizes for matrix products with an epilogue: small enough for every GPU we name.

What was measured on a GPU is kept beside this file as `tiles_<gpu>.json`; every other product
takes the rule below.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

CONFIGS = Path(__file__).parent


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """All that the best tiles of a launch depend on.

    Attributes:
        operator: Folder of the kernel.
        rows, inputs, outputs: x [rows, inputs] times a weight [outputs, inputs]; for qkv_rope the
            outputs are those of queries, keys and values together.
        dtype: Name of the type, such as "bfloat16".
    """

    operator: str
    rows: int
    inputs: int
    outputs: int
    dtype: str


def tiles_for(product: Product, device: torch.device) -> Tiles:
    """The measured tiles of a product on a GPU; by the rule where nobody measured it."""
    kept = _kept(device) if device.type == "cuda" else {}
    return kept.get(product) or product_tiles(product.rows, getattr(torch, product.dtype))


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


def read_tiles(gpu: str, *, folder: Path = CONFIGS) -> Mapping[Product, Tiles]:
    """The table of a GPU; empty where nobody measured it."""
    path = folder / _file_name(gpu)
    if not path.exists():
        return {}
    return {Product(**r["product"]): Tiles(**r["tiles"]) for r in json.loads(path.read_text())}


def write_tiles(table: Mapping[Product, Tiles], gpu: str, *, folder: Path = CONFIGS) -> Path:
    """Keep a table where `read_tiles` finds it; products that it has not keep their tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _file_name(gpu)
    rows = [
        {"product": dataclasses.asdict(product), "tiles": dataclasses.asdict(tiles)}
        for product, tiles in {**read_tiles(gpu, folder=folder), **table}.items()
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return path


def _file_name(gpu: str) -> str:
    return f"tiles_{gpu.replace(' ', '_')}.json"


@cache
def _kept(device: torch.device) -> Mapping[Product, Tiles]:
    return read_tiles(torch.cuda.get_device_name(device))
