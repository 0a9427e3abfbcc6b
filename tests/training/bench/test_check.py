"""What counts as the same actions."""

from __future__ import annotations

import pytest
import torch

from training.bench.contest.check import agreement


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "nf4"])
def test_the_reference_itself_agrees(weights):
    found = agreement(drawn(), drawn(), drawn(1))
    assert found.worst_cosine == pytest.approx(1.0)
    assert found.worst_flow_cosine == pytest.approx(1.0)
    assert found.max_error == 0
    assert found.inputs == 6
    assert found.refusal(weights) == ""


def test_one_wrong_input_of_many_is_what_counts():
    actions = drawn()
    actions[3] = -actions[3]
    found = agreement(actions, drawn(), drawn(1))
    assert found.worst_cosine == pytest.approx(-1.0)
    assert "wrong actions: cosine -1.0000" in found.refusal("nf4")


def test_fewer_bits_may_be_further_off():
    actions = drawn() + 0.05 * drawn(2)
    found = agreement(actions, drawn(), drawn(1))
    assert found.refusal("nf4") == ""
    assert "asked of fp32" in found.refusal("fp32")


@pytest.mark.parametrize("wrong", [drawn() * torch.nan, drawn()[:, :4]])
def test_what_is_not_finite_or_of_another_shape_agrees_with_nothing(wrong):
    assert agreement(wrong, drawn(), drawn(1)).refusal("nf4")


def test_a_network_that_leaves_the_noise_as_it_is_has_no_flow_to_agree():
    noise = torch.cat([drawn(1), torch.ones(6, 5, 25)], dim=-1)
    reference = drawn(1) + 0.1 * drawn()
    found = agreement(noise[..., :7], reference, noise)
    assert found.worst_cosine > 0.98
    assert found.worst_flow_cosine == pytest.approx(0.0)
