"""The activations that kernels compute in their epilogues, by name, and their plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional

ActivationName = Literal["relu", "silu", "gelu_tanh"]
Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tangent approximation that Gemma and SigLIP were trained with."""
    return functional.gelu(x, approximate="tanh")


FUNCTIONS: dict[ActivationName, Activation] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu_tanh": gelu_tanh,
}


def name_of(activation: Activation) -> ActivationName | None:
    """The name under which kernels know a function; None if they do not."""
    return next((name for name, known in FUNCTIONS.items() if known is activation), None)
