"""Against Transformers called the ordinary way, with the same weights, prompts and images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from . import reference, tiny
from .tiny import ANSWERS, FAMILIES, TEXTS

every_family = pytest.mark.parametrize("family", FAMILIES)
# Florence-2's positions are learned for each place, Gemma 3's windows count places.
BY_PLACE = ("florence2", "gemma3")
by_order = pytest.mark.parametrize("family", [f for f in FAMILIES if f not in BY_PLACE])


def hidden(family: str, network: Any, given: dict[str, Any]) -> torch.Tensor:
    """Last hidden states of the language model, of Florence-2's encoder."""
    network = network.model
    if family == "florence2":
        return network(**given).encoder_last_hidden_state
    return network(**given).last_hidden_state


@every_family
def test_hidden_states_are_those_of_transformers(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    given = reference.inputs(family, tiny.saved(family), pixels, TEXTS)
    with torch.no_grad():
        expected = hidden(family, reference.network(tiny.saved(family)), given)
        prefix = backbone.embed(backbone.encode_images(pixels), TEXTS)
        found = backbone(prefix)
    torch.testing.assert_close(prefix.ids_bp, given["input_ids"])
    mask = given["attention_mask"].bool()
    assert torch.equal(prefix.mask_bp, mask)
    assert not bool(mask.all())
    torch.testing.assert_close(found.last_hidden_bpd[mask], expected[mask], atol=2e-5, rtol=1e-5)
    assert found.hidden_states[-1] is found.last_hidden_bpd
    assert len(found.hidden_states) == tiny.LAYERS


@every_family
def test_every_layer_is_that_of_transformers(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family, rows=1)
    given = reference.inputs(family, tiny.saved(family), pixels, TEXTS[:1])
    with torch.no_grad():
        expected = reference.network(tiny.saved(family)).model(**given, output_hidden_states=True)
        prefix = backbone.embed(backbone.encode_images(pixels), TEXTS[:1])
        found = backbone(prefix, layers=[-1, 0])
    encoded = family == "florence2"
    states = expected.encoder_hidden_states if encoded else expected.hidden_states
    if not encoded:
        # The encoder's first state has the learned positions added.
        torch.testing.assert_close(prefix.embeds_bpd, states[0], atol=2e-5, rtol=1e-5)
    for ours, theirs in zip(found.hidden_states, (states[2], states[1])):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@every_family
def test_the_loss_of_answers_is_that_of_transformers(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    given = reference.inputs(family, tiny.saved(family), pixels, TEXTS, answers=ANSWERS)
    with torch.no_grad():
        expected = reference.network(tiny.saved(family))(**given).loss
        prefix = backbone.embed(backbone.encode_images(pixels), TEXTS, answers=ANSWERS)
        found = backbone(prefix, layers=(), labels=prefix.labels).loss
    assert prefix.labels is not None
    assert torch.equal(prefix.labels, given["labels"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_family
def test_what_is_said_is_what_transformers_says(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    given = reference.inputs(family, tiny.saved(family), pixels, TEXTS, left=family != "florence2")
    ids = reference.network(tiny.saved(family)).generate(
        **given, max_new_tokens=6, do_sample=False, num_beams=1, pad_token_id=0
    )
    new = ids if family == "florence2" else ids[:, given["input_ids"].shape[1] :]
    expected = [backbone.tokenizer.decode(row.tolist()) for row in new]
    found = backbone.generate(pixels, TEXTS, max_new_tokens=6)
    assert found == expected
    assert any(found)


@by_order
def test_a_missing_camera_leaves_the_prompt_without_it(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    mask = torch.tensor([[True, False], [True, False]])
    given = reference.inputs(family, tiny.saved(family), pixels[:, :1], TEXTS)
    if family == "llava_onevision":
        # A lone image would be cut into views at several scales.
        given["batch_num_images"] = [2]
    with torch.no_grad():
        expected = hidden(family, reference.network(tiny.saved(family)), given)
        images = backbone.encode_images(pixels, image_mask_bc=mask)
        prefix = backbone.embed(images, TEXTS)
        found = backbone(prefix).last_hidden_bpd
    for row in range(len(TEXTS)):
        seen, real = prefix.mask_bp[row], given["attention_mask"][row].bool()
        torch.testing.assert_close(found[row][seen], expected[row][real], atol=2e-5, rtol=1e-5)
        assert int(prefix.next_position_b[row]) == int(prefix.position_ids[..., row, :].max()) + 1


@pytest.mark.parametrize("family", BY_PLACE)
def test_a_missing_camera_is_masked(family: str):
    backbone, pixels = tiny.loaded(family), tiny.cameras(family)
    mask = torch.tensor([[True, False], [False, True]])
    given = reference.inputs(family, tiny.saved(family), pixels, TEXTS)
    with torch.no_grad():
        prefix = backbone.embed(backbone.encode_images(pixels, image_mask_bc=mask), TEXTS)
        found = backbone(prefix).last_hidden_bpd
        given["attention_mask"] = prefix.mask_bp.long()
        if family == "gemma3":
            given["position_ids"] = prefix.position_ids
        expected = hidden(family, reference.network(tiny.saved(family)), given)
    for row, seen in enumerate(mask):
        assert [bool(prefix.mask_bp[row, span].all()) for span in prefix.image_spans] == (
            seen.tolist()
        )
    seen = prefix.mask_bp
    torch.testing.assert_close(found[seen], expected[seen], atol=2e-5, rtol=1e-5)


@every_family
def test_words_alone_are_read_too(family: str):
    backbone = tiny.loaded(family)
    with torch.no_grad():
        prefix = backbone.embed(None, TEXTS)
        alone = backbone.embed(None, TEXTS[:1])
        both, one = (backbone(p).last_hidden_bpd for p in (prefix, alone))
    length = alone.ids_bp.shape[1]
    assert prefix.image_spans == ()
    # Padding of a shorter text changes nothing.
    torch.testing.assert_close(both[:1, :length], one, atol=2e-5, rtol=1e-5)
    assert len(backbone.generate(None, TEXTS, max_new_tokens=2)) == len(TEXTS)
