"""How far a kernel may be from the same operation in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# A few units in the last place of the type, at values of about one.
STEP = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_close(found: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> None:
    """`found` has the type it should, holds no NaN, and is within a few roundings of `exact`."""
    for index, (mine, expected) in enumerate(zip(found, exact, strict=True)):
        scale = float(expected.detach().abs().max().clamp_min(1))
        torch.testing.assert_close(
            mine.double(),
            expected.double(),
            atol=STEP[dtype] * scale,
            rtol=STEP[dtype],
            msg=lambda text, index=index: f"value {index}: {text}",
        )


def seeded(*shape: int, seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Normal numbers, the same ones each time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def with_gradients(
    outputs: Tensor | tuple[Tensor, ...], inputs: Sequence[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """The outputs, and the gradients of their product with fixed numbers."""
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    grads = [
        seeded(*out.shape, seed=50 + i, device=out.device, dtype=dtype).to(out.dtype)
        for i, out in enumerate(outputs)
    ]
    return [*outputs, *torch.autograd.grad(outputs, inputs, grads)]
