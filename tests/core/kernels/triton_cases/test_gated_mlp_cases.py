"""The gated product against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.gated_mlp import reference
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded

pytest.importorskip("triton")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nan_filled")]

# Leading dimensions, hidden, width: one row, odd sizes, more rows than a tile.
SHAPES = [((1,), 16, 64), ((2, 5), 33, 90), ((70,), 7, 53)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "relu"])
def test_activated_gate_times_up(
    shape: tuple[tuple[int, ...], int, int],
    activation: ActivationName,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    from fastvla_core.kernels.gated_mlp import triton as kernel

    lead, hidden, width = shape
    x = seeded(*lead, width, seed=0, device=device, dtype=dtype)
    gate, up = (seeded(hidden, width, seed=seed, device=device, dtype=dtype) / 8 for seed in (1, 2))
    found = kernel.gated_mlp(x, gate, up, activation=activation)
    exact = reference.gated_mlp(x.double(), gate.double(), up.double(), activation=activation)
    assert (found.dtype, found.shape) == (dtype, (*lead, hidden))
    assert_close([found], [exact], dtype)


# The interpreter computes with NumPy, which warns where a GPU quietly gives infinity.
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_large_gates_neither_overflow_nor_leak(device: torch.device) -> None:
    from fastvla_core.kernels.gated_mlp import triton as kernel

    x = torch.full((1, 16), 100.0, device=device)
    gate = torch.ones(16, 16, device=device) * torch.tensor([[1.0], [-1.0]] * 8, device=device)
    for activation in ("silu", "gelu_tanh"):
        found = kernel.gated_mlp(x, gate, torch.ones_like(gate), activation=activation)
        torch.testing.assert_close(found[0, ::2], torch.full((8,), 1600.0**2, device=device))
        assert torch.equal(found[0, 1::2].abs(), torch.zeros(8, device=device))
