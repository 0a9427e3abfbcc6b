"""Lists of pictures with questions and answers, for co-training: JSON, JSONL and CSV.

JSON and JSONL: `image` (or `images`) and `conversations`, a list of turns with `from` (`human`,
`gpt`) and `value`, or `messages` with `role` and `content`. CSV: `image`, `question`, `answer`.
Paths are relative to the list, or to a folder that is given.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError

_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant")
_PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Pictures and (question, answer) after (question, answer) about them."""

    images: tuple[Path, ...]
    turns: tuple[tuple[str, str], ...]

    def pictures(self) -> list[NDArray[np.uint8]]:
        """The pictures, uint8 [H, W, 3] RGB.

        Raises:
            DatasetError: one cannot be read.
        """
        return [_picture(path) for path in self.images]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationList:
    """What a list holds; `left_out` says per entry why it cannot be used."""

    conversations: tuple[Conversation, ...]
    left_out: tuple[str, ...] = ()


def load_conversations(path: str | Path, *, images: str | Path | None = None) -> ConversationList:
    """Read a list; pictures are opened when they are asked for, but must be there.

    Args:
        images: The folder that paths are relative to, instead of the list's own.

    Raises:
        DatasetError: the file cannot be read, or no entry of it can be used.
    """
    path = Path(path)
    folder = Path(images) if images is not None else path.parent
    found: list[Conversation] = []
    left_out: list[str] = []
    for number, row in enumerate(_rows(path), 1):
        try:
            found.append(_conversation(row, folder))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            left_out.append(f"{path}: entry {number}: {what}")
    if not found:
        listed = "".join(f"\n  {line}" for line in left_out[:3])
        raise DatasetError(
            f"{path}: holds no conversation that can be used{listed}",
            mend="give `image` and `conversations` (JSON, JSONL), or image, question, answer (CSV)",
        )
    return ConversationList(conversations=tuple(found), left_out=tuple(left_out))


def _rows(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            yield from csv.DictReader(text.splitlines(keepends=True))
        elif path.suffix == ".jsonl":
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
        else:
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise ValueError("is no list")
            yield from rows
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})", mend="check the file") from error


def _conversation(row: Mapping[str, Any], folder: Path) -> Conversation:
    named = row["images"] if row.get("images") else row["image"]
    paths = tuple(folder / name for name in ([named] if isinstance(named, str) else named))
    missing = next((file for file in paths if not file.is_file()), None)
    if not paths or missing is not None:
        raise ValueError(f"picture '{missing}' is not there" if paths else "names no picture")
    if "question" in row:
        turns = ((_text(row["question"]), _text(row["answer"])),)
    else:
        turns = _turns(row["conversations"] if "conversations" in row else row["messages"])
    return Conversation(images=paths, turns=turns)


def _turns(said: list[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    turns: list[tuple[str, str]] = []
    question: str | None = None
    for turn in said:
        who = turn["from"] if "from" in turn else turn["role"]
        text = turn["value"] if "value" in turn else turn["content"]
        if who in _ASKS and question is None:
            question = _text(text)
        elif who in _ANSWERS and question is not None:
            turns.append((question, _text(text)))
            question = None
        elif who != "system":
            raise ValueError(f"'{who}' speaks out of turn")
    if not turns or question is not None:
        raise ValueError("does not end with an answer")
    return tuple(turns)


def _text(value: Any) -> str:
    text = str(value).replace(_PLACEHOLDER, "").strip() if value is not None else ""
    if not text:
        raise ValueError("a question or an answer is empty")
    return text


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise DatasetError(f"{path}: cannot be read ({error})", mend="check the file") from error
    if pixels is None:
        raise DatasetError(f"{path}: is no picture", mend="leave its entry out of the list")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
