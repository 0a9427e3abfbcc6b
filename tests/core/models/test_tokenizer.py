from __future__ import annotations

from pathlib import Path

import pytest

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.models.tokenizer import (
    InstructionTokenizer,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = ["Pick up the red cube.", "stack the red cube on the blue cube"]


@pytest.fixture
def tokenizer() -> InstructionTokenizer:
    return InstructionTokenizer(train_tokenizer(TEXTS), max_length=12)


def test_every_word_of_the_corpus_is_one_token(tokenizer: InstructionTokenizer):
    _, mask = tokenizer.encode(["stack the red cube on the blue cube"])
    assert mask.sum() == 8


def test_case_and_blanks_do_not_matter(tokenizer: InstructionTokenizer):
    ids, _ = tokenizer.encode(["pick up the red cube.", "  PICK up\n the  Red cube. "])
    assert (ids[0] == ids[1]).all()


def test_order_does_matter(tokenizer: InstructionTokenizer):
    ids, _ = tokenizer.encode(["red on blue", "blue on red"])
    assert sorted(ids[0]) == sorted(ids[1])
    assert (ids[0] != ids[1]).any()


def test_an_unknown_word_falls_to_its_bytes(tokenizer: InstructionTokenizer):
    _, mask = tokenizer.encode(["the mauve cube"])
    assert mask.sum() == 2 + len(" mauve")
    assert tokenizer.encode(["die Würfel"])[1].sum() == len(" die Würfel".encode())


def test_padding_is_on_the_right_and_masked(tokenizer: InstructionTokenizer):
    ids, mask = tokenizer.encode(["red cube", "pick up the red cube"])
    assert mask.tolist() == [[True] * 2 + [False] * 10, [True] * 5 + [False] * 7]
    assert len(set(ids[~mask])) == 1


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_instruction_is_refused(tokenizer: InstructionTokenizer, text: str):
    with pytest.raises(ObservationError, match="instruction is empty"):
        tokenizer.encode([text])


def test_an_instruction_is_never_cut_silently(tokenizer: InstructionTokenizer):
    with pytest.raises(ObservationError, match="has 13 tokens, the policy reads 12"):
        tokenizer.encode(["red " * 13])


def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts():
    assert train_tokenizer(TEXTS).to_str() == train_tokenizer(reversed(TEXTS)).to_str()


def test_too_many_words_are_refused():
    with pytest.raises(CheckpointError, match="do not fit a vocabulary of 260"):
        train_tokenizer(TEXTS, vocab_size=260)


def test_saving_and_loading_keeps_every_id(tokenizer: InstructionTokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path, max_length=12)
    texts = ["pick up the red cube.", "the mauve cube"]
    assert (again.encode(texts)[0] == tokenizer.encode(texts)[0]).all()


def test_transformers_reads_the_saved_files(tokenizer: InstructionTokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    found = theirs("Stack the red cube", padding="max_length")
    ids, mask = tokenizer.encode(["Stack the red cube"])
    assert found["input_ids"] == ids[0].tolist()
    assert found["attention_mask"] == mask[0].astype(int).tolist()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path, max_length=12)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        load_tokenizer(tmp_path, max_length=12)


def test_what_is_no_unicode_is_refused_in_words(tokenizer: InstructionTokenizer):
    with pytest.raises(ObservationError, match="no valid text"):
        tokenizer.encode([b"pick \xff".decode(errors="surrogateescape")])


def test_a_very_long_instruction_is_not_repeated_whole(tokenizer: InstructionTokenizer):
    with pytest.raises(ObservationError) as caught:
        tokenizer.encode(["red " * 500])
    assert len(str(caught.value)) < 400
