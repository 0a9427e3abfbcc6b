"""Words behind an observation: told from the same, however the observation was read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.paligemma import PaliGemmaSize
from fastvla_core.models.backbones.siglip import SiglipSize
from fastvla_core.models.heads.words import behind_each, padded, told_by, word_loss
from fastvla_core.models.policies.pi.weights import PI0_FAST_TABLE
from fastvla_core.models.policies.pi0_fast.model import Pi0Fast
from fastvla_core.models.policies.smolvla.weights import WORD_HEAD
from fastvla_core.policy import FastVLA

from ..lerobot.checkpoints import FLOW_POLICIES, change_weights, copied

CPU = torch.device("cpu")
PROMPTS = ("pick up the red cube and put it into the bowl", "stop")


def prefix_batch(policy: FastVLA) -> dict[str, torch.Tensor]:
    """Two rows: prompts of different lengths, and the second without its last camera."""
    seen = policy.processor.random_observation(0)
    state = torch.from_numpy(seen.state).expand(2, -1)
    mask = torch.ones(2, len(policy.config.cameras), dtype=torch.bool)
    mask[1, -1] = False
    batch = policy.training_batch(
        images={name: torch.from_numpy(image)[None].repeat(2, 1, 1, 1)
                for name, image in seen.images.items()},
        image_mask=mask,
        state=state,
        actions=torch.zeros(2, policy.config.chunk_size, len(policy.config.action_names)),
        tasks=list(PROMPTS),
    )  # fmt: skip
    assert batch["token_mask"].sum(dim=1).unique().numel() == 2
    return batch


@pytest.mark.parametrize("name", FLOW_POLICIES)
def test_a_prefix_that_was_read_already_goes_on_as_if_read_in_one(name: str, tmp_path: Path):
    policy = FastVLA.from_pretrained(copied(name, tmp_path))
    model: Any = policy.model
    words, mask = padded([[3, 20, 21, 22, 5], [3, 30, 5]], device=CPU)
    with torch.no_grad():
        tokens = model.prefix_tokens(prefix_batch(policy))
        once = told_by(model.language_model, tokens, words, mask)
        again = behind_each(model.language_model, model.read_prefix(tokens), words[:, :-1])
    real = mask[:, 1:]
    torch.testing.assert_close(again[real], once[:, 1:][real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FLOW_POLICIES)
def test_a_word_is_told_from_what_stands_before_it_alone(name: str, tmp_path: Path):
    policy = FastVLA.from_pretrained(copied(name, tmp_path))
    model: Any = policy.model
    batch = prefix_batch(policy)
    batch.pop("state")
    words, mask = padded([[20, 21, 22, 5], [30, 5]], device=CPU)
    text = model.language_model
    with torch.no_grad():
        tokens = model.prefix_tokens(batch)
        told = told_by(text, tokens, words, mask)
        other = words.clone()
        other[0, 1] = 40
        changed = told_by(text, tokens, other, mask) != told
        assert not changed[0, :2].any()
        assert changed[0, 2:].any()
        assert not changed[1].any()
        # The first word of each row follows its own last real token, wherever padding begins.
        for row in range(2):
            kept = tokens.mask_bp[row]
            x = tokens.x_bpw[row][kept][None]
            everyone = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool)
            alone, _ = text(x, torch.arange(x.shape[1])[None], everyone)
            torch.testing.assert_close(told[row, 0], alone[0, -1], atol=1e-5, rtol=1e-5)


def test_the_loss_is_a_mean_over_words_that_count():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    words, mask = padded([[1, 2, 3], [4]], device=CPU)
    chances = logits.log_softmax(dim=-1)
    told = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 4)]
    expected = -torch.stack([chances[place] for place in told]).mean()
    torch.testing.assert_close(word_loss(logits, words, mask), expected)


def test_a_head_of_its_own_takes_the_place_of_the_embedding(tmp_path: Path):
    folder = copied("smolvla", tmp_path)
    tied = FastVLA.from_pretrained(folder)
    hidden = torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        tied.model.word_logits(hidden), hidden @ tied.model.text.embed_tokens.weight.T
    )
    own = torch.randn(380, 64, generator=torch.Generator().manual_seed(1))
    change_weights(folder, lambda stored: stored.update({WORD_HEAD: own}))
    loaded = FastVLA.from_pretrained(folder)
    assert torch.equal(loaded.model.word_logits(hidden), hidden @ own.T)
    loaded.save_pretrained(tmp_path / "saved")
    again = FastVLA.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.model.word_logits(hidden), hidden @ own.T)


def test_answers_cost_what_transformers_paligemma_says():
    """The same weights in another implementation, prompts and answers of several lengths."""
    pytest.importorskip("transformers")
    from ..backbones.vlm.tiny import loaded

    theirs = loaded("paligemma")
    config = theirs.network.config
    ours = Pi0Fast(cast(Any, SimpleNamespace(paligemma=paligemma_size(config))))
    state = {
        PI0_FAST_TABLE.own(
            PI0_FAST_TABLE.normalized(f"model.paligemma_with_expert.paligemma.{k}")
        ): v
        for k, v in theirs.network.state_dict().items()
    }
    ours.load_state_dict(state)
    questions, answers = ("pick up the cube", "stop"), ("a red cube.", "yes, it is done.")
    pixels = torch.rand(2, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    shown = torch.tensor([[True, True], [True, False]])
    encode = theirs.tokenizer.encode
    asked, asked_mask = padded([encode(f"<bos>{text}\n") for text in questions], device=CPU)
    said, said_mask = padded([encode(f"{text}<eos>") for text in answers], device=CPU)
    with torch.no_grad():
        images = theirs.encode_images(pixels, image_mask_bc=shown)
        prefix = theirs.embed(images, questions, answers=answers)
        expected = theirs(prefix, labels=prefix.labels, layers=()).loss
        tokens = ours.prefix_tokens(
            {
                "images": pixels * 2 - 1,
                "image_mask": shown,
                "tokens": asked,
                "token_mask": asked_mask,
            }
        )
        told = told_by(ours.language_model, tokens, said, said_mask)
        found = word_loss(ours.word_logits(told), said, said_mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def paligemma_size(config: Any) -> PaliGemmaSize:
    text, vision = config.text_config, config.vision_config
    return PaliGemmaSize(
        vision=SiglipSize(
            width=vision.hidden_size,
            depth=vision.num_hidden_layers,
            heads=vision.num_attention_heads,
            mlp_width=vision.intermediate_size,
            patch=vision.patch_size,
            grid=vision.image_size // vision.patch_size,
        ),
        text=DecoderSize(
            width=text.hidden_size,
            depth=text.num_hidden_layers,
            mlp_width=text.intermediate_size,
            attention=AttentionShape(
                heads=text.num_attention_heads,
                kv_heads=text.num_key_value_heads,
                head_dim=text.head_dim,
            ),
        ),
        vocab_size=text.vocab_size,
    )
