"""What is remembered is used only where it is right, and only within one goal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.memory import TokenMemory

GREY = 1 / 127.5


class Eye:
    """Tokens are four means of the image; counts how often each camera is looked at."""

    def __init__(self, memory: TokenMemory, threshold: float) -> None:
        self.memory, self.threshold, self.looks = memory, threshold, [0, 0]

    def __call__(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        def look(camera: int) -> Tensor:
            self.looks[camera] += 1
            cells = torch.nn.functional.adaptive_avg_pool2d(images[:, camera], (2, 2))
            return cells.flatten(2).mT + (0 if condition is None else condition)

        return self.memory.camera_tokens(
            images, look, threshold=self.threshold, grid=(2, 2), condition=condition
        )


def images() -> Tensor:
    return torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_only_the_camera_that_changed_is_looked_at_again():
    eye, before = Eye(TokenMemory(), 0.0), images()
    first = eye(before)
    now = before.clone()
    now[:, 1, 0, 0, 0] += 1e-6
    second = eye(now)
    assert eye.looks == [1, 2]
    assert torch.equal(second[:, 0], first[:, 0])
    assert torch.equal(second, Eye(TokenMemory(), 0.0)(now))
    assert (eye.memory.counts.cameras, eye.memory.counts.cameras_reused) == (4, 1)


def test_a_change_counts_by_the_part_of_the_image_where_it_is_largest():
    eye, before = Eye(TokenMemory(), 2.0), images()
    eye(before)
    now = before.clone()
    now[:, 0, :, :2, :2] += 1.9 * GREY
    now[:, 1, :, :2, :2] += 2.1 * GREY
    eye(now)
    assert eye.looks == [1, 2]


def test_small_changes_add_up():
    eye, before = Eye(TokenMemory(), 2.0), images()
    for step in range(4):
        eye(before + step * GREY)
    assert eye.looks == [2, 2], "compared with what was looked at, not with the previous image"


def test_another_condition_is_another_look():
    eye = Eye(TokenMemory(), 0.0)
    eye(images(), torch.zeros(1))
    eye(images(), torch.ones(1))
    eye(images(), torch.ones(1))
    assert eye.looks == [2, 2]


def test_a_prefix_is_read_again_for_any_difference_in_what_it_depends_on():
    memory, reads = TokenMemory(), []

    def read() -> int:
        reads.append(0)
        return len(reads)

    x, mask = torch.rand(1, 3, 2), torch.ones(1, 3, dtype=torch.bool)
    assert memory.prefix(x, mask, read=read) == 1
    assert memory.prefix(x.clone(), mask.clone(), read=read) == 1
    assert memory.prefix(x, mask, torch.arange(3)[None], read=read) == 2
    assert memory.prefix(x + 1e-7, mask, read=read) == 3
    assert memory.prefix(x[:, :2], mask[:, :2], read=read) == 4
    assert memory.counts.prefixes_reused == 1


def test_what_cannot_be_differentiated_is_read_again_where_it_may_have_to_be():
    memory, x = TokenMemory(), torch.rand(1, 3, 2)
    with torch.inference_mode():
        assert memory.prefix(x, read=lambda: "first") == "first"
        assert memory.prefix(x, read=lambda: "again") == "first"
    assert memory.prefix(x, read=lambda: "outside") == "outside"
    with torch.inference_mode():
        assert memory.prefix(x, read=lambda: "inside") == "outside"


def test_an_instruction_is_read_again_when_it_is_another():
    memory, words = TokenMemory(), torch.tensor([[3, 4, 0]])
    assert memory.words(words, words > 0, read=lambda: "first") == "first"
    assert memory.words(words.clone(), words > 0, read=lambda: "again") == "first"
    assert memory.words(words + 1, words > 0, read=lambda: "other") == "other"


LAYOUT = PrefixLayout(cameras=1, rows=2, columns=2, words=2)


def test_a_token_that_was_left_out_keeps_the_attention_it_had():
    memory, now = TokenMemory(), images()[:, :1]
    memory.remember(now, torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0, 0.0]]), layout=LAYOUT, kept=None)
    kept = Kept(torch.tensor([[1, 3, 4, 5]]), torch.ones(1, 6, dtype=torch.bool))
    memory.remember(now, torch.tensor([[0.7, 0.8, 0.1, 0.1]]), layout=LAYOUT, kept=kept)
    hints = memory.hints(now, LAYOUT)
    assert hints.attention_bi is not None
    assert hints.attention_bi[0].tolist() == pytest.approx([0.1, 0.7, 0.3, 0.8])


def test_change_is_that_since_the_previous_inference():
    memory, now = TokenMemory(), images()[:, :1]
    attention = torch.zeros(1, 6)
    assert memory.hints(now, LAYOUT).change_bi is None
    memory.remember(now, attention, layout=LAYOUT, kept=None)
    memory.remember(now + 1, attention, layout=LAYOUT, kept=None)
    later = now + 1
    later[..., 2:, 2:] += 1
    hints = memory.hints(later, LAYOUT)
    assert hints.change_bi is not None
    assert hints.change_bi[0].tolist() == pytest.approx([0, 0, 0, 1], abs=1e-6)
