"""Byte-level tokenizers for instructions, saved so that Transformers loads them too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fastvla_core.errors import CheckpointError, ObservationError

PAD_TOKEN = "<pad>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 512) -> Tokenizer:
    """A byte-level BPE vocabulary in which every word of the corpus is one token.

    Lower-cases and collapses blanks. A word that the corpus lacks falls to its bytes, so that
    every text has tokens. The result is the same for the same words, in any order of the texts.

    Raises:
        CheckpointError: the corpus has more words than the vocabulary has room for.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Counter(
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(text)
        )
    )
    new = sorted(set(words) - set(alphabet), key=lambda word: (-words[word], word))
    entries = [PAD_TOKEN, *alphabet, *new]
    if len(entries) > vocab_size:
        raise CheckpointError(
            f"tokenizer: {len(entries)} entries (256 bytes, {len(new)} words and {PAD_TOKEN}) "
            f"do not fit a vocabulary of {vocab_size}",
            mend="raise `vocab_size` or use fewer words",
        )
    # A word that is in the vocabulary is taken whole, so no merges are needed to build it.
    tokenizer.model = models.BPE(
        vocab={word: index for index, word in enumerate(entries)}, merges=[], ignore_merges=True
    )
    tokenizer.add_special_tokens([PAD_TOKEN])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class InstructionTokenizer:
    """Instructions to padded token ids and their mask."""

    def __init__(self, tokenizer: Tokenizer, *, max_length: int) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pad_id: int = self._tokenizer.token_to_id(PAD_TOKEN) or 0
        self.max_length = max_length
        self.vocab_size: int = self._tokenizer.get_vocab_size()

    @property
    def text(self) -> str:
        """The whole tokenizer as JSON."""
        return self._tokenizer.to_str()

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids and mask (True = a real token), each [len(texts), max_length].

        Raises:
            ObservationError: a text is empty, no valid Unicode, or longer than the policy reads.
        """
        ids = np.full((len(texts), self.max_length), self._pad_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.bool_)
        for row, text in enumerate(texts):
            try:
                found = self._tokenizer.encode(text).ids
            # A terminal hands over bytes that are no UTF-8 as halves of characters.
            except TypeError as error:
                raise ObservationError(
                    f"the instruction {text!r} is no valid text", mend="write it in UTF-8"
                ) from error
            if not found:
                raise ObservationError(
                    "the instruction is empty", mend="give a task in words, such as 'pick the cube'"
                )
            if len(found) > self.max_length:
                raise ObservationError(
                    f"the instruction '{text[:60]}{'...' * (len(text) > 60)}' has {len(found)} "
                    f"tokens, the policy reads {self.max_length}",
                    mend="shorten it; a word that the policy was not trained on costs one token "
                    "per letter",
                )
            ids[row, : len(found)] = found
            mask[row, : len(found)] = True
        return ids, mask

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PAD_TOKEN,
            "padding_side": "right",
            "model_max_length": self.max_length,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_tokenizer(folder: Path, *, max_length: int) -> InstructionTokenizer:
    """Read FOLDER/tokenizer.json.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", mend="copy the checkpoint again, completely")
    try:
        return InstructionTokenizer(Tokenizer.from_file(str(path)), max_length=max_length)
    # The library raises bare Exception on malformed files.
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", mend="copy the checkpoint again, completely"
        ) from error
