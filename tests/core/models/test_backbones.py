from __future__ import annotations

import pytest
import torch

from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.backbones.film_conv import FilmConvStem
from fastvla_core.models.backbones.text import AttentionPool, TextEncoder
from fastvla_core.models.backbones.vit import VisionTransformerStem

from .tiny import film_vision, vit_vision

FILM = {k: v for k, v in film_vision().items() if k not in ("type", "per_camera_weights")}
VIT = {k: v for k, v in vit_vision().items() if k != "type"}


@pytest.mark.parametrize("first_stride", [2, 4])
@pytest.mark.parametrize(("height", "width"), [(19, 30), (16, 16), (3, 97)])
def test_film_conv_knows_its_token_count(first_stride: int, height: int, width: int):
    stem = FilmConvStem({**FILM, "first_stride": first_stride}, height=height, width=width)
    tokens = stem(torch.randn(2, 3, height, width), torch.randn(2, 16))
    assert tokens.shape == (2, stem.token_count, stem.token_width)


@pytest.mark.parametrize(("first_stride", "conditioned"), [(2, [False, True]), (4, [True, True])])
def test_a_large_first_step_is_conditioned_too(first_stride: int, conditioned: list[bool]):
    stem = FilmConvStem({**FILM, "first_stride": first_stride}, height=16, width=16)
    assert [layer.film is not None for layer in stem.layers] == conditioned


def test_each_image_is_steered_by_its_own_condition():
    stem = FilmConvStem(FILM, height=16, width=16).eval()
    image = torch.randn(1, 3, 16, 16).expand(2, -1, -1, -1)
    condition = torch.randn(2, 16)
    with torch.inference_mode():
        first, second = stem(image, condition)
        alone = stem(image[1:], condition[1:])[0]
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(second, alone)


def test_the_transformer_stem_tells_where_a_patch_is():
    stem = VisionTransformerStem(VIT, height=16, width=16).eval()
    image = torch.zeros(1, 3, 16, 16)
    image[..., :8, :8] = 1
    with torch.inference_mode():
        here, there = stem(image, None), stem(image.flip(-1), None)
    assert here.shape == (1, 4, 32)
    assert (here[0, 0] - there[0, 1]).abs().max() > 1e-4


def _pooled(pool: AttentionPool, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return pool(x, mask)


def test_pooling_ignores_padding():
    pool = AttentionPool(8, 4)
    x, mask = torch.randn(1, 5, 8), torch.tensor([[True, True, True, False, False]])
    padded = x.clone()
    padded[:, 3:] = 99.0
    assert torch.equal(_pooled(pool, x, mask), _pooled(pool, padded, mask))
    torch.testing.assert_close(_pooled(pool, x, mask), _pooled(pool, x[:, :3], mask[:, :3]))


def test_the_pooled_vector_depends_on_the_order_of_words():
    text = TextEncoder(
        vocab_size=10,
        max_length=6,
        width=16,
        depth=1,
        mlp_width=16,
        shape=AttentionShape(heads=2, kv_heads=1, head_dim=8),
    )
    pool = AttentionPool(16, 8)
    mask = torch.ones(1, 4, dtype=torch.bool)
    with torch.inference_mode():
        vectors = [
            pool(text(torch.tensor([ids]), mask), mask) for ids in ([5, 1, 2, 3], [5, 3, 2, 1])
        ]
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
