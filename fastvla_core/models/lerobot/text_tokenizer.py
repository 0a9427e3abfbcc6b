"""The tokenizer of a language model, as its tokenizer.json and tokenizer_config.json say."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.models.checkpoint import read_json

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_log = logging.getLogger(__name__)


class TextTokenizer:
    """Text to padded token ids.

    Attributes:
        vocab_size: Entries without those that were added behind the model's own.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: dict[str, str], folder: Path) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self.folder = folder
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=False)

    def special_id(self, kind: str) -> int:
        """The id of a special token such as "pad_token".

        Raises:
            CheckpointError: the tokenizer has none of that kind.
        """
        found = self._tokenizer.token_to_id(self._special.get(kind, ""))
        if found is None:
            raise CheckpointError(
                f"{self.folder / 'tokenizer_config.json'}: there is no '{kind}'",
                mend="use the tokenizer that the policy was trained with",
            )
        return found

    def token_id(self, token: str) -> int:
        """The id of a token.

        Raises:
            CheckpointError: there is no such token.
        """
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"{self.folder / 'tokenizer.json'}: there is no token {token!r}",
                mend="use the tokenizer that the policy was trained with",
            )
        return found

    def plain_ids(self, text: str) -> list[int]:
        """Ids of a text without anything around it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode(
        self, texts: Sequence[str], *, max_length: int, pad_to: int | None, cut: bool
    ) -> tuple[Tensor, Tensor]:
        """Ids (int64) and mask (True = a real token), each [len(texts), l], padded on the right.

        Args:
            max_length: Longest sequence.
            pad_to: Width of the result; None takes the longest of the texts.
            cut: Shorten what is longer than `max_length`, which LeRobot does; else refuse it.
        Raises:
            ObservationError: a text is empty, no valid Unicode, or too long and not to be cut.
        """
        rows = [self._row(text, max_length, cut=cut) for text in texts]
        width = max(map(len, rows)) if pad_to is None else pad_to
        ids = torch.full((len(rows), width), self.special_id("pad_token"), dtype=torch.int64)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return ids, mask

    def save(self, folder: Path) -> None:
        """Copy the files that it was read from."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (self.folder / name).is_file() and not (folder / name).exists():
                shutil.copy2(self.folder / name, folder / name)

    def _row(self, text: str, max_length: int, *, cut: bool) -> list[int]:
        try:
            ids = self._tokenizer.encode(text).ids
        # A terminal hands over bytes that are no UTF-8 as halves of characters.
        except TypeError as error:
            raise ObservationError(
                f"the instruction {text!r} is no valid text", mend="write it in UTF-8"
            ) from error
        if not text.strip():
            raise ObservationError(
                "the instruction is empty", mend="give a task in words, such as 'pick the cube'"
            )
        if len(ids) > max_length:
            if not cut:
                raise ObservationError(
                    f"the instruction {text[:60]!r} has {len(ids)} tokens, the policy reads "
                    f"{max_length}",
                    mend="shorten it",
                )
            _log.warning("a prompt of %d tokens is cut to %d: %.60r", len(ids), max_length, text)
        return ids[:max_length]


def load_text_tokenizer(folder: Path) -> TextTokenizer:
    """Read FOLDER/tokenizer.json and tokenizer_config.json.

    Raises:
        CheckpointError: one is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", mend="copy the tokenizer's files there")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception on malformed files.
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", mend="copy the tokenizer's files again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = _special_tokens(folder)
    return TextTokenizer(tokenizer, special=special, folder=folder)


def _special_tokens(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        data: dict[str, Any] = read_json(folder / name) if (folder / name).is_file() else {}
        for key, value in data.items():
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[key] = text
    return found
