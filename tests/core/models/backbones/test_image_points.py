"""Points in pictures: where a feature is, and what a missing camera says."""

from __future__ import annotations

import pytest
import torch

from fastvla_core.models.backbones.image_points import ImagePoints, Pointer


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 4), (2, 2)])
def test_a_feature_in_one_token_is_found_at_its_column_and_row(row: int, column: int):
    points = ImagePoints(4, (3, 5), points=1)
    torch.nn.init.constant_(points.scores.weight, 1.0)
    tokens = torch.zeros(1, 15, 4)
    tokens[0, row * 5 + column] = 25.0
    found = points(tokens)
    assert found.shape == (1, 1, 2)
    expected = torch.tensor([column / 2 - 1, row - 1.0])
    torch.testing.assert_close(found[0, 0], expected, atol=1e-5, rtol=0)


def test_between_two_tokens_it_is_in_the_middle():
    points = ImagePoints(1, (2, 5), points=1)
    torch.nn.init.constant_(points.scores.weight, 40.0)
    tokens = torch.zeros(1, 10, 1)
    tokens[0, [1, 2]] = 1.0
    torch.testing.assert_close(points(tokens)[0, 0], torch.tensor([-0.25, -1.0]), atol=1e-5, rtol=0)


def test_a_missing_camera_says_only_that_it_is_missing():
    torch.manual_seed(0)
    pointer = Pointer(8, (2, 3), cameras=2, points=4, said=2, state=1)
    images, said, state = torch.randn(1, 12, 8), torch.randn(1, 2), torch.randn(1, 1)
    there, gone = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    changed = images.clone()
    changed[:, 6:] += torch.randn(1, 6, 8)

    def told(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return pointer(pixels, mask, said, state)

    assert told(images, there).shape == (1, pointer.out_width)
    assert torch.equal(told(images, gone), told(changed, gone))
    assert not torch.allclose(told(images, there), told(changed, there))
    assert not torch.allclose(told(images, there), told(images, gone))
