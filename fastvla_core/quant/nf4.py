"""NF4 packing, and the state that bitsandbytes and Transformers store beside the packed weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvla_core.errors import QuantError
from fastvla_core.kernels.nf4_linear import (
    BLOCK,
    NESTED_BLOCK,
    NF4_LEVELS,
    NestedScales,
    Nf4Weight,
    dequantize,
)

__all__ = [
    "BLOCK",
    "NF4_LEVELS",
    "NestedScales",
    "Nf4Weight",
    "dequantize",
    "dynamic_code",
    "from_state",
    "quantize",
    "to_state",
]

STATE_KEY = "quant_state.bitsandbytes__nf4"
_SMALLEST_SCALE = 1e-38


def quantize(weight: Tensor, *, nested: bool = False) -> Nf4Weight:
    """Pack a weight to 4 bits: 4.5 bits per element, 4.13 with nested scales.

    Args:
        weight: [N, K], float32, float16 or bfloat16; N * K may be odd or no multiple of 64.
        nested: Store the block scales in 8 bits too. Smaller for large layers; one of fewer than
            about 22,000 elements grows, because each carries its own code table.
    Raises:
        QuantError: Not two-dimensional, empty, another type, or it holds NaN or infinity.
    Source: QLoRA, arXiv:2305.14314.
    """
    check_weight(weight)
    flat = weight.detach().reshape(-1).float()
    absmax, scaled = _normalize(flat, BLOCK)
    index = _nearest(scaled, torch.tensor(NF4_LEVELS, device=flat.device)).to(torch.uint8)
    if index.numel() % 2:
        index = F.pad(index, (0, 1), value=NF4_LEVELS.index(0.0))
    packed = (index[0::2] << 4 | index[1::2]).unsqueeze(1)
    scales = None
    if nested:
        absmax, scales = _quantize_scales(absmax)
    rows, columns = weight.shape
    return Nf4Weight(
        packed=packed,
        absmax=absmax,
        shape=(rows, columns),
        dtype=weight.dtype,
        nested=scales,
    )


def check_weight(weight: Tensor) -> None:
    """Raise QuantError unless a weight can be quantised."""
    if weight.ndim != 2 or not weight.numel():
        raise QuantError(
            f"cannot quantise a weight of shape {tuple(weight.shape)}",
            mend="only non-empty matrices [N, K] are quantised; skip this layer",
        )
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise QuantError(
            f"cannot quantise a weight of type {weight.dtype}",
            mend="load the checkpoint in float32, float16 or bfloat16 (is it quantised already?)",
        )
    if not bool(torch.isfinite(weight).all()):
        raise QuantError(
            "the weight holds NaN or infinity", mend="the checkpoint is damaged; use an earlier one"
        )


def dynamic_code() -> Tensor:
    """Return the signed dynamic 8-bit type, float32 [256] ascending, that nested scales index.

    Decade e = -6 .. 0 holds 2 ** (e + 6) midpoints on either side of zero; 0 and 1 complete it.
    Source: 8-Bit Approximations for Parallelism in Deep Learning, arXiv:1511.04561.
    """
    values = [0.0, 1.0]
    for step in range(7):
        edges = torch.linspace(0.1, 1, 2**step + 1, dtype=torch.float32)
        middles = (edges[1:] + edges[:-1]) / 2 * 10 ** (step - 6)
        values += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


def to_state(weight: Nf4Weight) -> dict[str, Tensor]:
    """Return the tensors that bitsandbytes stores; the key "" is the packed weight."""
    meta: dict[str, Any] = {
        "quant_type": "nf4",
        "blocksize": weight.block,
        "dtype": _dtype_name(weight.dtype),
        "shape": weight.shape,
    }
    levels = torch.tensor(NF4_LEVELS, device=weight.packed.device)
    state = {"": weight.packed, "absmax": weight.absmax, "quant_map": levels}
    nested = weight.nested
    if nested is not None:
        meta |= {
            "nested_blocksize": nested.block,
            "nested_dtype": "float32",
            "nested_offset": nested.offset.item(),
        }
        state |= {"nested_absmax": nested.absmax, "nested_quant_map": nested.code}
    state[STATE_KEY] = torch.tensor(list(json.dumps(meta).encode()), dtype=torch.uint8)
    return state


def from_state(state: Mapping[str, Tensor]) -> Nf4Weight:
    """Rebuild a weight from what bitsandbytes stores; the inverse of `to_state`.

    Raises:
        QuantError: A tensor is missing or does not fit, or it is another 4-bit type than NF4.
    """
    meta = _read_meta(state)
    packed = _take(state, "").contiguous().view(torch.uint8).reshape(-1, 1)
    rows, columns = _read_shape(meta)
    block = int(meta.get("blocksize", 0))
    _require(block >= 2 and block % 2 == 0, f"blocksize is {block}")
    count = rows * columns
    _require(
        packed.numel() == (count + 1) // 2, f"{packed.numel()} packed bytes for {count} elements"
    )
    levels = _take(state, "quant_map").float().cpu()
    _require(
        levels.shape == (16,) and torch.allclose(levels, torch.tensor(NF4_LEVELS), atol=1e-6),
        "quant_map is not the NF4 table",
    )
    absmax = _take(state, "absmax")
    _require(absmax.numel() == -(-count // block), f"{absmax.numel()} scales for {count} elements")
    nested = _read_nested(state, meta, absmax.numel())
    return Nf4Weight(
        packed=packed,
        absmax=absmax.float() if nested is None else absmax,
        shape=(rows, columns),
        block=block,
        dtype=_read_dtype(meta),
        nested=nested,
    )


def _normalize(flat: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the largest magnitude of each block, and the elements divided by it."""
    count = flat.numel()
    blocks = F.pad(flat, (0, -count % block)).view(-1, block)
    absmax = blocks.abs().amax(1)
    scaled = blocks * absmax.clamp_min(_SMALLEST_SCALE).reciprocal()[:, None]
    return absmax, scaled.view(-1)[:count]


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the level nearest to each value; a tie takes the lower one."""
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2, out_int32=True)


def _quantize_scales(absmax: Tensor) -> tuple[Tensor, NestedScales]:
    offset = absmax.mean()
    outer, scaled = _normalize(absmax - offset, NESTED_BLOCK)
    code = dynamic_code().to(absmax.device)
    index = _nearest(scaled, code).to(torch.uint8)
    return index, NestedScales(code=code, absmax=outer, offset=offset)


def _read_meta(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found = [key for key in state if key.startswith("quant_state.")]
    _require(found == [STATE_KEY], f"expected {STATE_KEY!r}, found {found}")
    try:
        meta = json.loads(bytes(state[STATE_KEY].cpu().tolist()))
    except ValueError as error:
        raise _damaged(f"{STATE_KEY!r} is not JSON ({error})") from error
    _require(isinstance(meta, dict), f"{STATE_KEY!r} is not a JSON object")
    _require(meta.get("quant_type", "nf4") == "nf4", f"quant_type is {meta.get('quant_type')!r}")
    return meta


def _read_shape(meta: dict[str, Any]) -> tuple[int, int]:
    shape = meta.get("shape")
    if not isinstance(shape, list) or len(shape) != 2:
        raise _damaged(f"shape is {shape}")
    return int(shape[0]), int(shape[1])


def _read_dtype(meta: dict[str, Any]) -> torch.dtype:
    dtype = getattr(torch, str(meta.get("dtype")), None)
    if not isinstance(dtype, torch.dtype):
        raise _damaged(f"dtype is {meta.get('dtype')!r}")
    return dtype


def _read_nested(
    state: Mapping[str, Tensor], meta: dict[str, Any], blocks: int
) -> NestedScales | None:
    if "nested_absmax" not in state:
        return None
    absmax = _take(state, "nested_absmax").float()
    code = _take(state, "nested_quant_map").float()
    block = int(meta.get("nested_blocksize", 0))
    _require(block > 0 and absmax.numel() == -(-blocks // block), f"nested blocksize is {block}")
    _require(code.shape == (256,), f"nested_quant_map has shape {tuple(code.shape)}")
    _require("nested_offset" in meta, "nested_offset is missing")
    offset = torch.tensor(float(meta["nested_offset"]), dtype=torch.float32, device=absmax.device)
    return NestedScales(code=code, absmax=absmax, offset=offset, block=block)


def _take(state: Mapping[str, Tensor], key: str) -> Tensor:
    _require(key in state, f"{key or 'the packed weight'} is missing")
    return state[key]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _damaged(what)


def _damaged(what: str) -> QuantError:
    return QuantError(
        f"not an NF4 weight as bitsandbytes stores it: {what}",
        mend="save the checkpoint again, with bnb_4bit_quant_type='nf4'",
    )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
