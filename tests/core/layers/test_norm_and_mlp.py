from __future__ import annotations

import torch
from torch.nn import functional

from fastvla_core.layers.mlp import GatedMLP
from fastvla_core.layers.norm import RMSNorm


def test_rms_norm_gives_unit_root_mean_square_times_the_weight():
    norm = RMSNorm(16)
    norm.weight.data.uniform_(0.5, 2.0)
    x = torch.randn(3, 5, 16) * 7
    rms = (norm(x) / norm.weight).square().mean(-1)
    torch.testing.assert_close(rms, torch.ones(3, 5), atol=1e-4, rtol=0)


def test_rms_norm_keeps_the_type_of_its_input():
    assert RMSNorm(8)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_rms_norm_of_zeros_is_zero_and_not_nan():
    assert torch.equal(RMSNorm(8)(torch.zeros(1, 8)), torch.zeros(1, 8))


def test_gated_mlp_multiplies_the_activated_gate_with_up():
    mlp = GatedMLP(4, 6)
    x = torch.randn(2, 4)
    gate, up = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    expected = (functional.silu(gate) * up) @ mlp.down_proj.weight.T
    torch.testing.assert_close(mlp(x), expected)
