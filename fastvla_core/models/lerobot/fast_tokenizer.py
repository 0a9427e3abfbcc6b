"""FAST: chunks of actions as a few tokens, by a cosine transform and byte-pair encoding.

Shapes: t action steps, a action dimensions.
Source: Pertsch et al., arXiv:2501.09747.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json

_FILES = ("tokenizer.json", "tokenizer_config.json", "processor_config.json")


class FastTokenizer:
    """Normalised action chunks to FAST tokens and back.

    Args:
        tokenizer: Byte-pair encoding over characters, one per quantised coefficient.
        scale: Coefficients are multiplied by it before they are rounded.
        min_token: The coefficient that the first character stands for.

    Attributes:
        vocab_size: Number of FAST tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, scale: float, min_token: int, folder: Path) -> None:
        self._tokenizer = tokenizer
        self.scale = scale
        self.min_token = min_token
        self.folder = folder
        self.vocab_size: int = tokenizer.get_vocab_size()

    def encode(self, actions_ta: NDArray[np.floating]) -> list[int]:
        """FAST tokens of a chunk."""
        coefficients = np.around(cosine_matrix(len(actions_ta)) @ actions_ta * self.scale)
        shifted = np.maximum(coefficients.flatten() - self.min_token, 0).astype(int)
        return self._tokenizer.encode("".join(map(chr, shifted.tolist()))).ids

    def decode(self, tokens: Sequence[int], *, steps: int, dims: int) -> NDArray[np.float64]:
        """The chunk [steps, dims] of FAST tokens.

        As LeRobot does it, coefficients beyond the chunk are dropped, missing ones are 0, and
        tokens that cannot be FAST's give a chunk of zeros: the mean of the training data.
        """
        coefficients = np.zeros(steps * dims)
        if not any(token < 0 for token in tokens):
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
            found = np.array([ord(letter) for letter in text[: steps * dims]]) + self.min_token
            coefficients[: len(found)] = found
        return cosine_matrix(steps).T @ (coefficients.reshape(steps, dims) / self.scale)

    def save(self, folder: Path) -> None:
        """Copy the files that it was read from."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (self.folder / name).is_file() and not (folder / name).exists():
                shutil.copy2(self.folder / name, folder / name)


def cosine_matrix(steps: int) -> NDArray[np.float64]:
    """The orthonormal cosine transform of type II over `steps` values."""
    k, n = np.arange(steps)[:, None], np.arange(steps)[None, :]
    matrix = math.sqrt(2 / steps) * np.cos(math.pi * (2 * n + 1) * k / (2 * steps))
    matrix[0] /= math.sqrt(2)
    return matrix


def load_fast_tokenizer(folder: Path) -> FastTokenizer:
    """Read FOLDER/tokenizer.json and FOLDER/processor_config.json; no code of it is run.

    Raises:
        CheckpointError: one is missing or damaged.
    """
    config = read_json(folder / "processor_config.json")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        scale, min_token = float(config["scale"]), int(config["min_token"])
    # The library raises bare Exception on malformed files.
    except Exception as error:
        raise CheckpointError(
            f"{folder}: the FAST tokenizer is missing or damaged: {error!r}",
            mend="copy its tokenizer.json and processor_config.json there again",
        ) from error
    return FastTokenizer(tokenizer, scale=scale, min_token=min_token, folder=folder)
