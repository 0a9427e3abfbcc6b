"""Which attention is fastest for a shape, as measured on a GPU; what is not measured takes SDPA."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["sdpa", "flex", "triton"]
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that the time of an attention depends on.

    Attributes:
        batch, heads, kv_heads, head_dim, queries, prefix_keys, own_keys: Sizes.
        dtype: Name of the type, such as "bfloat16".
    """

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    queries: int
    prefix_keys: int
    own_keys: int
    dtype: str

    @classmethod
    def of(cls, q_bhtd: Tensor, key_bgsd: Tensor, *, prefix_keys: int) -> Shape:
        """The shape of a call."""
        batch, heads, queries, head_dim = q_bhtd.shape
        return cls(
            batch=batch,
            heads=heads,
            kv_heads=key_bgsd.shape[1],
            head_dim=head_dim,
            queries=queries,
            prefix_keys=prefix_keys,
            own_keys=key_bgsd.shape[2],
            dtype=str(q_bhtd.dtype).removeprefix("torch."),
        )


@cache
def measured(gpu: str, *, folder: Path = CONFIGS) -> Mapping[Shape, Backend]:
    """The table of a GPU; empty where nobody measured it."""
    path = folder / f"{gpu.replace(' ', '_')}.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())
    return {Shape(**row["shape"]): row["best"] for row in rows}


def write(table: Mapping[Shape, Backend], gpu: str, *, folder: Path = CONFIGS) -> Path:
    """Keep a table where `measured` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{gpu.replace(' ', '_')}.json"
    rows = [{"shape": dataclasses.asdict(shape), "best": best} for shape, best in table.items()]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return path


def choose(shape: Shape, device: torch.device) -> Backend:
    """The fastest attention for a shape on a device, SDPA where that is not known."""
    if device.type != "cuda":
        return "sdpa"
    return measured(torch.cuda.get_device_name(device)).get(shape, "sdpa")
