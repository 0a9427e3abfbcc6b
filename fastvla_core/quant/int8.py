"""Eight-bit weights with one scale per output row, as bitsandbytes' LLM.int8 stores them.

Only the weights are 8-bit. Activations stay in the caller's type: no outlier columns to split off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .nf4 import check_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Weight:
    """W[n, k] = codes[n, k] * absmax[n] / 127.

    Attributes:
        codes: int8 [N, K], within -127 .. 127 (bitsandbytes: CB).
        absmax: float32 [N], largest magnitude of each row (bitsandbytes: SCB).
    """

    codes: Tensor
    absmax: Tensor


def quantize(weight: Tensor) -> Int8Weight:
    """Round a weight [N, K] to 8 bits per element.

    For float16 and bfloat16 weights within float16's normal range the bytes equal bitsandbytes'.
    Float32 ones are not cut to float16 first, as bitsandbytes does, and may differ by one step.

    Raises:
        QuantError: Not a finite, non-empty matrix of a floating type.
    Source: LLM.int8(), arXiv:2208.07339.
    """
    check_weight(weight)
    values = weight.detach().float()
    absmax = values.abs().amax(1)
    # A row of zeros has no scale: any finite factor gives zeros.
    factor = torch.where(absmax > 0, 127.0 / absmax, 0.0)
    # Rows below float32's normal range would overflow the factor.
    factor = factor.clamp_max(torch.finfo(torch.float32).max)
    codes = (values * factor[:, None]).round().clamp(-127, 127).to(torch.int8)
    return Int8Weight(codes=codes, absmax=absmax)


def dequantize(weight: Int8Weight, dtype: torch.dtype) -> Tensor:
    """Unpack to [N, K]; the product with the scale is taken in float32 and rounded once."""
    return weight.codes.float().mul_((weight.absmax / 127.0)[:, None]).to(dtype)
