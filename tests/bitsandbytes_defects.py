"""What bitsandbytes gets wrong on some processors, so that tests beside it can say so."""

from __future__ import annotations

import pytest
import torch


def need_right_scales() -> None:
    """Skip where bitsandbytes unpacks NF4 blocks that straddle rows with wrong scales.

    Seen with 0.50.2 on AVX-512; with bfloat16 there, its layers also refuse such shapes.
    """
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.randn(8, 48), quant_type="nf4")
    found = functional.dequantize_4bit(packed, state)
    state.shape = torch.Size((1, 8 * 48))
    if not torch.equal(found, functional.dequantize_4bit(packed, state).view(8, 48)):
        pytest.skip("bitsandbytes takes wrong scales on this processor (fastvla_core/quant/README)")
