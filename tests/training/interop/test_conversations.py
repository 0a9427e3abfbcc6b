"""Lists of pictures and conversations: three kinds of file, broken entries named."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from fastvla_core.errors import DatasetError
from training.interop.conversations import load_conversations

TURNS = [
    {"from": "human", "value": "<image>\nWhat is this?"},
    {"from": "gpt", "value": "A cube."},
    {"from": "human", "value": "Which colour?"},
    {"from": "gpt", "value": "Red."},
]
EXPECTED = (("What is this?", "A cube."), ("Which colour?", "Red."))


@pytest.fixture
def pictures(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 200
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / name), picture)
    return tmp_path


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_lists_give_turns_and_pictures(pictures, suffix):
    rows = [
        {"image": "a.png", "conversations": TURNS},
        {
            "images": ["a.png", "b.png"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Same?"},
                {"role": "assistant", "content": "Yes."},
            ],
        },
    ]
    file = pictures / f"list.{suffix}"
    lines = "\n".join(map(json.dumps, rows))
    file.write_text(json.dumps(rows) if suffix == "json" else lines)
    first, second = load_conversations(file).conversations
    assert first.turns == EXPECTED
    assert second.turns == (("Same?", "Yes."),)
    assert [p.shape for p in second.pictures()] == [(4, 6, 3)] * 2
    assert first.pictures()[0][0, 0].tolist() == [200, 0, 0]


def test_csv_lists_keep_line_breaks_and_use_another_folder(pictures, tmp_path):
    file = tmp_path / "elsewhere" / "list.csv"
    file.parent.mkdir()
    file.write_text('image,question,answer\na.png,"What\nis it?",A cube\n')
    (only,) = load_conversations(file, images=pictures).conversations
    assert only.turns == (("What\nis it?", "A cube"),)


def test_entries_that_cannot_be_used_are_named_and_the_others_kept(pictures):
    rows = [
        {"image": "a.png", "conversations": TURNS},
        {"image": "missing.png", "conversations": TURNS},
        {"conversations": TURNS},
        {"image": "a.png", "conversations": TURNS[:1]},
        {"image": "a.png", "conversations": TURNS[1:]},
        {"image": "a.png", "question": " ", "answer": "x"},
        7,
    ]
    file = pictures / "list.json"
    file.write_text(json.dumps(rows))
    found = load_conversations(file)
    assert len(found.conversations) == 1
    assert len(found.left_out) == 6
    assert "entry 2: picture" in found.left_out[0]
    assert "entry 3: has no 'image'" in found.left_out[1]
    assert "does not end with an answer" in found.left_out[2]


@pytest.mark.parametrize("text", ["[", "{}", "[]", '[{"image": 1}]'])
def test_a_file_of_which_nothing_can_be_used_is_refused(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        load_conversations(tmp_path / "list.json")
    assert caught.value.mend


def test_a_picture_that_is_none_is_named_when_it_is_opened(pictures):
    (pictures / "a.png").write_bytes(b"hello")
    (pictures / "list.csv").write_text("image,question,answer\na.png,What?,That\n")
    (only,) = load_conversations(pictures / "list.csv").conversations
    with pytest.raises(DatasetError, match="is no picture"):
        only.pictures()
