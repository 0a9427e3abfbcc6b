from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.models.backbones.vlm.text import Prompt, VLMTokenizer, tokenize_prompts

WORDS = ("<pad>", "[", "]", "<image>", "go", "left", "right", "user", "says", "now", ".")
PROMPT = Prompt(
    before="user ",
    image_open="[",
    image_token="<image>",
    image_close="]",
    after=" {text} says",
    answer_close=" .",
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> VLMTokenizer:
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="."))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(WORDS[:4]))
    made.save(str(tmp_path / "tokenizer.json"))
    return VLMTokenizer.load(tmp_path)


def words(ids: torch.Tensor) -> str:
    return " ".join(WORDS[index] for index in ids.tolist())


def test_cameras_stand_n_times_between_their_markers(tokenizer: VLMTokenizer):
    found = tokenize_prompts(
        tokenizer,
        PROMPT,
        ["go left now", "go"],
        answers=None,
        cameras=2,
        tokens_per_camera=2,
        pad_id=0,
    )
    assert words(found.ids_bp[1]) == (
        "user [ <image> <image> ] [ <image> <image> ] go says <pad> <pad>"
    )
    assert found.camera_bp[0].tolist() == [2, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert found.real_bp.sum(1).tolist() == [13, 11]
    assert found.image_spans(2) == (slice(2, 4), slice(6, 8))
    there = found.visible(torch.tensor([[True, False], [False, True]]))
    assert there[0].tolist() == [True] * 5 + [False] * 4 + [True] * 4
    assert there[1].tolist() == [True] + [False] * 4 + [True] * 6 + [False] * 2


def test_answers_follow_and_padding_can_lead(tokenizer: VLMTokenizer):
    found = tokenize_prompts(
        tokenizer,
        PROMPT,
        ["go left", "go"],
        answers=["now", "right now"],
        cameras=0,
        tokens_per_camera=0,
        pad_id=0,
        pad_left=True,
    )
    assert words(found.ids_bp[0]) == "user go left says now ."
    assert words(found.ids_bp[1]) == "user go says right now ."
    assert found.answer_bp.sum(1).tolist() == [2, 3]
    shorter = tokenize_prompts(
        tokenizer,
        PROMPT,
        ["go left", "go"],
        answers=None,
        cameras=0,
        tokens_per_camera=0,
        pad_id=0,
        pad_left=True,
    )
    assert shorter.real_bp[1].tolist() == [False, True, True, True]


def test_a_cameras_place_in_an_instruction_is_refused(tokenizer: VLMTokenizer):
    with pytest.raises(ObservationError, match="holds '<image>', a camera's place"):
        tokenize_prompts(
            tokenizer,
            PROMPT,
            ["go <image>"],
            answers=None,
            cameras=1,
            tokens_per_camera=2,
            pad_id=0,
        )


def test_text_that_is_no_unicode_is_refused(tokenizer: VLMTokenizer):
    with pytest.raises(ObservationError, match="no valid text"):
        tokenizer.encode("go \udce4")


def test_a_damaged_tokenizer_is_named(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        VLMTokenizer.load(tmp_path)


def test_an_unknown_token_is_refused(tokenizer: VLMTokenizer):
    assert tokenizer.has("left")
    with pytest.raises(CheckpointError, match="no token '<video>'"):
        tokenizer.token_id("<video>")
