"""Words that look at images: what reaches them, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.fusion import CrossFusion, CrossFusionOptions

WIDTH, CAMERAS = 16, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fusion(**options: int) -> CrossFusion:
    torch.manual_seed(0)
    return CrossFusion(
        CrossFusionOptions(**{"depth": 2, "heads": 4, **options}), width=WIDTH, cameras=CAMERAS
    )


WORDS, IMAGES = random(2, 5, WIDTH), random(2, CAMERAS, 3, WIDTH, seed=1)
MASK = torch.tensor([[True, True], [True, False]])


def test_closed_gates_leave_words_as_they_are():
    made = fusion()
    for layer in made.layers:
        torch.nn.init.zeros_(layer.get_parameter("attention_gate"))
        torch.nn.init.zeros_(layer.get_parameter("mlp_gate"))
    assert torch.equal(made(WORDS, IMAGES, MASK), WORDS)


def test_at_first_words_change_a_little():
    change = (fusion()(WORDS, IMAGES, MASK) - WORDS).square().mean().sqrt()
    assert 0 < change < 0.3


def test_a_missing_camera_changes_nothing_and_a_present_one_all_words():
    made = fusion()
    plain = made(WORDS, IMAGES, MASK)
    hidden, shown = IMAGES.clone(), IMAGES.clone()
    hidden[1, 1] = 1e3
    shown[0, 1] += 1
    torch.testing.assert_close(made(WORDS, hidden, MASK), plain)
    moved = (made(WORDS, shown, MASK) - plain).abs().amax(dim=-1)
    assert (moved[0] > 0).all()
    assert (moved[1] == 0).all()


def test_without_any_camera_words_are_numbers():
    assert bool(fusion()(WORDS, IMAGES, torch.zeros_like(MASK)).isfinite().all())


def test_equal_images_of_two_cameras_are_told_apart_once_learned():
    made = fusion(depth=1)
    images = IMAGES.clone()
    images[:, 1] = 0.0
    swapped = images.flip(1)
    both = torch.ones_like(MASK)
    torch.testing.assert_close(made(WORDS, swapped, both), made(WORDS, images, both))
    with torch.no_grad():
        made.camera.weight[1] = random(WIDTH)
    assert not torch.allclose(made(WORDS, swapped, both), made(WORDS, images, both))


def test_gradient_reaches_words_images_and_every_weight():
    made = fusion()
    words, images = WORDS.clone().requires_grad_(), IMAGES.clone().requires_grad_()
    made(words, images, MASK).square().sum().backward()
    assert words.grad is not None
    assert images.grad is not None
    assert (images.grad[1, 1] == 0).all()
    assert (images.grad[0].abs().sum(dim=(1, 2)) > 0).all()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())


def test_words_keep_their_type():
    assert fusion()(WORDS.bfloat16(), IMAGES.bfloat16(), MASK).dtype == torch.bfloat16


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(CheckpointError, match="3 heads does not divide the backbone's width of 16"):
        fusion(heads=3)
