"""What bitsandbytes gets wrong on some processors, and how tests beside it go about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor


def unpacked_as_one_row(packed: Tensor, state: Any) -> Tensor:
    """Unpack NF4 with bitsandbytes as one long row.

    Its AVX-512 kernel (0.50.2) takes wrong scales where a block straddles rows.
    """
    from bitsandbytes import functional

    shape = state.shape
    state.shape = torch.Size((1, shape.numel()))
    result = functional.dequantize_4bit(packed, state).view(shape)
    state.shape = shape
    return result


def need_right_scales() -> None:
    """Skip where it does so; with bfloat16 its layers there also refuse such shapes."""
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.randn(8, 48), quant_type="nf4")
    found = functional.dequantize_4bit(packed, state)
    if not torch.equal(found, unpacked_as_one_row(packed, state)):
        pytest.skip("bitsandbytes takes wrong scales on this processor (fastvla_core/quant/README)")
