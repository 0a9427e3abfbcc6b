"""Plain torch: unpack the weight, then one matrix product. Defines the operator; the CPU path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvla_core.kernels.activation import FUNCTIONS, ActivationName

from .layout import Nf4Weight, pair_table


def block_scales(weight: Nf4Weight) -> Tensor:
    """Return the scale of every block, float32 [blocks], resolving the second level if any."""
    nested = weight.nested
    if nested is None:
        return weight.absmax
    scales = nested.code.index_select(0, weight.absmax.int())
    scale_by_block(scales, nested.absmax, nested.block)
    return scales.add_(nested.offset)


def scale_by_block(flat: Tensor, scales: Tensor, block: int) -> None:
    """Multiply each run of `block` elements in place by its scale; the last run may be short."""
    whole, rest = divmod(flat.numel(), block)
    if not rest:
        flat.view(whole, block).mul_(scales.view(whole, 1))
        return
    flat[:-rest].view(whole, block).mul_(scales[:whole, None])
    flat[-rest:].mul_(scales[whole])


def dequantize(weight: Nf4Weight, dtype: torch.dtype) -> Tensor:
    """Unpack to [N, K].

    The product of level and scale is taken in float32 and rounded once, as bitsandbytes does, so
    the result equals its result bit for bit.
    """
    rows, columns = weight.shape
    index = weight.packed.view(-1).int()
    flat = pair_table(index.device).index_select(0, index).view(torch.float32)
    if rows * columns % 2:
        flat = flat[:-1]
    scale_by_block(flat, block_scales(weight), weight.block)
    return flat.view(rows, columns).to(dtype)


def nf4_linear(
    x: Tensor, weight: Nf4Weight, bias: Tensor | None, activation: ActivationName | None = None
) -> Tensor:
    """activation(x @ W^T + bias) in the type of `x`; see `fastvla_core.kernels.nf4_linear`."""
    return activate(dense_linear(x, dequantize(weight, compute_dtype(x)), bias), activation)


def activate(x: Tensor, activation: ActivationName | None) -> Tensor:
    """What a named activation makes of `x`; itself where there is none."""
    return x if activation is None else FUNCTIONS[activation](x)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type to multiply in: that of `x`, but float32 for float16 on a CPU.

    Float16 products run about 800 times slower than bfloat16 ones on the CPUs measured.
    """
    return torch.float32 if x.dtype == torch.float16 and x.device.type == "cpu" else x.dtype


def dense_linear(x: Tensor, dense_nk: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply by an unpacked weight in the weight's type and return the type of `x`."""
    dtype = dense_nk.dtype
    if bias is not None:
        bias = bias.to(dtype)
    return F.linear(x.to(dtype), dense_nk, bias).to(x.dtype)
