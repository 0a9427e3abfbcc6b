from __future__ import annotations

import torch

from fastvla_core.layers.rope import rope_table


def _score(query: torch.Tensor, key: torch.Tensor, at: int, to: int) -> float:
    table = rope_table(torch.tensor([at, to]), head_dim=8)
    rotated = table.rotate(torch.stack([query, key])[None, None])
    return float(rotated[0, 0, 0] @ rotated[0, 0, 1])


def test_scores_depend_on_the_distance_only():
    query, key = torch.randn(8), torch.randn(8)
    assert abs(_score(query, key, 3, 7) - _score(query, key, 103, 107)) < 1e-4
    assert abs(_score(query, key, 3, 7) - _score(query, key, 3, 9)) > 1e-4


def test_position_zero_changes_nothing():
    x = torch.randn(1, 2, 1, 8)
    assert torch.equal(rope_table(torch.tensor([0]), head_dim=8).rotate(x), x)


def test_rotation_keeps_lengths():
    x = torch.randn(1, 2, 5, 8)
    rotated = rope_table(torch.arange(5), head_dim=8).rotate(x)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))


def test_first_pair_turns_by_one_radian_per_position():
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1.0
    rotated = rope_table(torch.tensor([1]), head_dim=8).rotate(x)[0, 0, 0]
    expected = torch.tensor([1.0]).cos().item(), torch.tensor([1.0]).sin().item()
    assert abs(rotated[0] - expected[0]) < 1e-6
    assert abs(rotated[4] - expected[1]) < 1e-6
