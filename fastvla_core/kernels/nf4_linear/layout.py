"""The NF4 weight as bitsandbytes stores it, and the constants that decode it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 64
NESTED_BLOCK = 256

# Quantiles of the normal distribution, scaled to [-1, 1]; QLoRA, arXiv:2305.14314, appendix E.
NF4_LEVELS: tuple[float, ...] = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedScales:
    """Second level of the block scales: scale[b] = code[index[b]] * absmax[b // block] + offset.

    Attributes:
        code: float32 [256], ascending in [-1, 1].
        absmax: float32 [ceil(blocks / block)].
        offset: float32 scalar, the mean of the first-level scales.
        block: First-level blocks that share one entry of `absmax`.
    """

    code: Tensor
    absmax: Tensor
    offset: Tensor
    block: int = NESTED_BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Nf4Weight:
    """A weight [N, K] in NF4, flattened row by row; blocks may straddle rows.

    Attributes:
        packed: uint8 [ceil(N * K / 2), 1]; the even element of a pair sits in the high nibble.
        absmax: Scale of each block, float32 [blocks]; with `nested`, uint8 indices into its code.
        shape: (N, K), output and input features.
        block: Elements that share one scale; even.
        dtype: Type of the weight before packing; bitsandbytes unpacks to it.
        nested: Second level of the scales, or None.
    """

    packed: Tensor
    absmax: Tensor
    shape: tuple[int, int]
    block: int = BLOCK
    dtype: torch.dtype = torch.float32
    nested: NestedScales | None = None


def level_table(device: torch.device) -> Tensor:
    """Return the 16 levels, float32 [16], on a device."""
    return _make_levels(device) if torch.compiler.is_compiling() else _kept_levels(device)


def pair_table(device: torch.device) -> Tensor:
    """Return what each byte decodes to: int64 [256], every entry the bits of two float32.

    One 64-bit look-up per byte is four times faster on a CPU than two float look-ups.
    """
    return _make_pairs(device) if torch.compiler.is_compiling() else _kept_pairs(device)


def _make_levels(device: torch.device) -> Tensor:
    return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)


def _make_pairs(device: torch.device) -> Tensor:
    levels, byte = _make_levels(device), torch.arange(256, device=device)
    return torch.stack([levels[byte >> 4], levels[byte & 15]], dim=1).view(torch.int64).view(-1)


# The compiler traces through a cache and warns of it; it makes a constant of the table instead.
# A table made inside inference mode could not serve a later training step.
@lru_cache(maxsize=16)
def _kept_levels(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _make_levels(device)


@lru_cache(maxsize=16)
def _kept_pairs(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _make_pairs(device)
