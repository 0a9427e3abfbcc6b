"""What holds for every family, whatever Transformers does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvla_core.errors import ObservationError
from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import Part, VLMBackbone

from . import tiny
from .tiny import ANSWERS, FAMILIES, TEXTS

every_family = pytest.mark.parametrize("family", FAMILIES)
PARTS: tuple[Part, ...] = ("vision", "projector", "language")


def last_hidden(backbone: VLMBackbone, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        images = backbone.encode_images(pixels, image_mask_bc=mask)
        return backbone(backbone.embed(images, TEXTS), layers=()).last_hidden_bpd


@every_family
def test_a_camera_becomes_as_many_tokens_as_said(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    images = backbone.encode_images(pixels)
    count = backbone.num_image_tokens(*pixels.shape[-2:])
    assert images.tokens_bcnd.shape == (2, 2, count, backbone.embedding_dim)
    assert images.grid[0] * images.grid[1] + backbone.extra_tokens == count
    prefix = backbone.embed(images, TEXTS)
    assert [span.stop - span.start for span in prefix.image_spans] == [count, count]
    for camera, span in enumerate(prefix.image_spans):
        assert torch.equal(prefix.embeds_bpd[:, span], images.tokens_bcnd[:, camera])


@every_family
def test_pixels_of_a_missing_camera_do_not_matter(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family).float() / 255
    mask = torch.tensor([[True, False], [False, True]])
    expected = last_hidden(backbone, pixels, mask)
    broken = pixels.masked_fill(~mask[:, :, None, None, None], float("nan"))
    assert bool(expected.isfinite().all())
    tiny.assert_close(last_hidden(backbone, broken, mask), expected)
    assert not torch.allclose(last_hidden(backbone, pixels), expected, atol=1e-2)


@every_family
def test_bytes_and_fractions_are_the_same_image(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    torch.testing.assert_close(
        backbone.encode_images(pixels).tokens_bcnd,
        backbone.encode_images(pixels / 255).tokens_bcnd,
        atol=1e-5,
        rtol=1e-5,
    )


@every_family
def test_words_are_embedded_without_a_prompt(family: str):
    backbone = tiny.loaded(family)
    words = backbone.encode_text(TEXTS)
    assert words.mask_bl.sum(1).tolist() == [len(backbone.tokenizer.encode(t)) for t in TEXTS]
    again = backbone.encode_text(words.ids_bl)
    assert torch.equal(again.embeds_bld, words.embeds_bld)
    # The words of the prompt are these words.
    prefix = backbone.embed(None, TEXTS[:1])
    length = int(words.mask_bl[0].sum())
    own = words.embeds_bld[0, 1 : length - 1]
    windows = prefix.embeds_bpd[0].unfold(0, length - 2, 1).transpose(1, 2)
    assert any(torch.equal(window, own) for window in windows)


@every_family
def test_training_reaches_every_part(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    prefix = backbone.embed(backbone.encode_images(pixels), TEXTS, answers=ANSWERS)
    loss = backbone(prefix, labels=prefix.labels).loss
    loss.backward()
    for part in PARTS:
        largest = max(
            float(p.grad.abs().max()) for p in backbone.parameters_of(part) if p.grad is not None
        )
        assert largest > 0, part


@every_family
def test_parts_are_frozen_and_counted_by_themselves(family: str):
    backbone = tiny.loaded(family)
    for part in PARTS:
        backbone.freeze("all")
        assert not any(p.requires_grad for p in backbone.parameters())
        backbone.unfreeze(part)
        trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        assert trained == backbone.num_parameters(part) > 0
    total = sum(p.numel() for p in backbone.parameters())
    assert sum(map(backbone.num_parameters, PARTS)) == backbone.num_parameters() == total


@every_family
def test_keys_and_values_are_given_with_their_gradients(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    shape = backbone.language_shape
    prefix = backbone.embed(backbone.encode_images(pixels), TEXTS)
    output = backbone(prefix, layers=[1], with_key_values=True)
    assert output.key_values is not None
    ((key, value),) = output.key_values
    length = prefix.ids_bp.shape[1]
    assert key.shape == value.shape == (2, shape.kv_heads, length, shape.head_dim)
    assert len(output.hidden_states) == 1
    torch.testing.assert_close(output.last_hidden_bpd, backbone(prefix).last_hidden_bpd)
    (key.sum() + value.square().sum()).backward()
    assert any(
        p.grad is not None and bool(p.grad.any()) for p in backbone.parameters_of("projector")
    )


@every_family
def test_keys_are_rotated_by_their_positions(family: str):
    backbone = tiny.loaded(family)
    positions = torch.arange(4)[None]
    tables = [backbone.rotary(positions, layer=layer) for layer in range(tiny.LAYERS)]
    if family == "florence2":
        assert tables == [None, None]
        return
    prefix = backbone.embed(None, ["red red red red red red"])
    with torch.no_grad():
        output = backbone(prefix, with_key_values=True)
    assert output.key_values is not None
    key = output.key_values[0][0]
    where = prefix.position_ids if prefix.position_ids.ndim == 2 else prefix.position_ids[0]
    table = backbone.rotary(where, layer=0)
    assert table is not None
    cosine, sine = (part[:, None] for part in table)
    first, second = key.chunk(2, -1)
    plain = key * cosine - torch.cat([-second, first], -1) * sine
    # The first layer sees nothing but the word, so only the position tells its keys apart.
    word = backbone.tokenizer.encode(" red")[-1]
    places = (prefix.ids_bp[0] == word).nonzero().flatten()
    assert len(places) >= 5
    spread = plain[:, :, places] - plain[:, :, places[:1]]
    assert float(spread.abs().max()) < 1e-5
    assert float((key[:, :, places[1]] - key[:, :, places[0]]).abs().max()) > 1e-3


@every_family
def test_saving_and_loading_changes_no_bit(family: str, tmp_path: Path):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    backbone.save_pretrained(tmp_path / "again")
    again = VLMBackbone.from_pretrained(tmp_path / "again")
    assert type(again) is type(backbone)
    tiny.assert_same(again, backbone)
    tiny.assert_close(last_hidden(again, pixels), last_hidden(backbone, pixels))
    assert isinstance(again, TransformersBackbone)
    assert again.recipe == backbone.recipe
    assert again.tokenizer.size == backbone.tokenizer.size


def test_half_precision_keeps_the_rotary_frequencies(tmp_path: Path):
    folder = tiny.write_folder(tmp_path / "made", "qwen2_5_vl")
    for backbone in (
        VLMBackbone.from_config(folder, dtype=torch.bfloat16),
        tiny.loaded("qwen2_5_vl", dtype=torch.bfloat16),
    ):
        assert isinstance(backbone, TransformersBackbone)
        assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}
        assert backbone.language_model.rotary_emb.inv_freq.dtype == torch.float32
        assert bool(last_hidden(backbone, tiny.cameras("qwen2_5_vl")).isfinite().all())


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (torch.zeros(2, 2, 28, 28, 3), r"\(2, 2, 28, 28, 3\)"),
        (torch.zeros(2, 3, 28, 28), r"\(2, 3, 28, 28\)"),
        (torch.zeros(2, 2, 3, 28, 28, dtype=torch.int32), "int32"),
    ],
)
def test_images_of_another_form_are_refused(pixels: Tensor, says: str):
    with pytest.raises(ObservationError, match=says):
        tiny.loaded("paligemma").encode_images(pixels)


def test_a_mask_for_other_cameras_is_refused():
    backbone = tiny.loaded("paligemma")
    with pytest.raises(ObservationError, match=r"mask of images .* is \(2, 3\)"):
        backbone.encode_images(tiny.cameras("paligemma"), image_mask_bc=torch.ones(2, 3))


def test_a_layer_that_is_not_there_is_refused():
    backbone = tiny.loaded("paligemma")
    with pytest.raises(ObservationError, match=r"layers \[2\] of a backbone that has 2"):
        backbone(backbone.embed(None, TEXTS), layers=[2])


def test_rows_of_texts_and_images_must_agree():
    backbone = tiny.loaded("paligemma")
    images = backbone.encode_images(tiny.cameras("paligemma"))
    with pytest.raises(ObservationError, match="1 instructions for 2 rows"):
        backbone.embed(images, TEXTS[:1])
    with pytest.raises(ObservationError, match="1 answers"):
        backbone.embed(images, TEXTS, answers=ANSWERS[:1])


def test_more_tokens_than_learned_positions_are_refused():
    backbone = tiny.loaded("florence2")
    with pytest.raises(ObservationError, match="positions for 128"):
        backbone.embed(None, ["red " * 200])
