"""The hidden features of a gated MLP on the CPU, and the names of activations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fastvla_core.kernels.activation import FUNCTIONS, gelu_tanh, name_of
from fastvla_core.kernels.gated_mlp import gated_mlp


def by_hand(name: str, x: float) -> float:
    if name == "silu":
        return x / (1 + math.exp(-x))
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("name", ["silu", "gelu_tanh"])
def test_the_activated_gate_multiplies_up(name: str) -> None:
    x, gate, up = torch.randn(2, 3), torch.randn(4, 3), torch.randn(4, 3)
    found = gated_mlp(x, gate, up, activation=name)  # type: ignore[arg-type]
    for row in range(2):
        for column in range(4):
            opened = by_hand(name, float(x[row] @ gate[column]))
            exact = opened * float(x[row] @ up[column])
            assert found[row, column].item() == pytest.approx(exact, rel=1e-4, abs=1e-5)


def test_functions_are_known_by_name_and_others_are_not() -> None:
    assert name_of(functional.silu) == "silu"
    assert name_of(gelu_tanh) == "gelu_tanh"
    assert name_of(functional.gelu) is None
    assert all(name_of(function) == name for name, function in FUNCTIONS.items())
