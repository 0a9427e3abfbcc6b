"""A backbone's tokenizer and its prompt: where cameras, words and answers stand.

Shapes: b batch, c cameras, n tokens per camera, p prefix tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from fastvla_core.errors import CheckpointError, ObservationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What stands around cameras and words in the prompts that a family was trained with.

    Attributes:
        before, after: Around the cameras; `after` holds "{text}" where the words go.
        image_open, image_token, image_close: A camera; `image_token` stands n times.
        answer_open, answer_close: Around what the model says.
    """

    before: str
    image_open: str
    image_token: str
    image_close: str
    after: str
    answer_open: str = ""
    answer_close: str

    def filled(self, text: str, *, cameras: int) -> str:
        """The prompt with one `image_token` per camera."""
        image = self.image_open + self.image_token + self.image_close
        return self.before + image * cameras + self.after.replace("{text}", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """Tokenised prompts.

    Attributes:
        ids_bp: Token ids.
        real_bp: False for padding.
        camera_bp: Which camera a token belongs to, its markers included; c where to none.
        image_bp: True for the n tokens of each camera.
        answer_bp: True for the answers.
    """

    ids_bp: Tensor
    real_bp: Tensor
    camera_bp: Tensor
    image_bp: Tensor
    answer_bp: Tensor

    def visible(self, image_mask_bc: Tensor) -> Tensor:
        """Tokens [b, p] that are neither padding nor of a missing camera."""
        always_b1 = torch.ones(len(self.ids_bp), 1, dtype=torch.bool)
        there = torch.cat([image_mask_bc.bool().cpu(), always_b1], dim=1)
        return self.real_bp & there.gather(1, self.camera_bp)

    def image_spans(self, cameras: int) -> tuple[slice, ...]:
        """Where each camera's n tokens are; padding must be at the end."""
        first = [
            (self.image_bp[0] & (self.camera_bp[0] == camera)).nonzero().flatten()
            for camera in range(cameras)
        ]
        return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in first)


class VLMTokenizer:
    """Text to ids and back, as tokenizer.json says; nothing is added by itself."""

    def __init__(self, tokenizer: Tokenizer, *, source: Path) -> None:
        self._tokenizer = tokenizer
        self._source = source

    @classmethod
    def load(cls, folder: Path) -> VLMTokenizer:
        """Read FOLDER/tokenizer.json.

        Raises:
            CheckpointError: it is missing or damaged.
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
        return cls(tokenizer, source=path)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written in it are recognised.

        Raises:
            ObservationError: it is no valid Unicode.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        # A terminal hands over bytes that are no UTF-8 as halves of characters.
        except TypeError as error:
            raise ObservationError(
                f"the instruction {text!r} is no valid text", mend="write it in UTF-8"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def has(self, token: str) -> bool:
        """Whether there is a token of this text."""
        return self._tokenizer.token_to_id(token) is not None

    def token_id(self, token: str) -> int:
        """The id of one token.

        Raises:
            CheckpointError: there is no such token.
        """
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"{self._source}: there is no token {token!r}",
                mend="use the tokenizer that belongs to these weights",
            )
        return found


def tokenize_prompts(
    tokenizer: VLMTokenizer,
    prompt: Prompt,
    texts: Sequence[str],
    *,
    answers: Sequence[str] | None,
    cameras: int,
    tokens_per_camera: int,
    pad_id: int,
    pad_left: bool = False,
) -> PromptTokens:
    """Fill the prompt for each row, and pad the rows to the longest.

    Raises:
        ObservationError: a text holds the placeholder of a camera.
    """
    markers = _Markers.of(tokenizer, prompt)
    rows = [
        _row(
            text,
            answer,
            tokenizer=tokenizer,
            prompt=prompt,
            cameras=cameras,
            tokens_per_camera=tokens_per_camera,
            markers=markers,
        )
        for text, answer in zip(texts, answers or [None] * len(texts))
    ]
    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    camera = torch.full(shape, cameras, dtype=torch.int64)
    real, image, answered = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for index, row in enumerate(rows):
        start = width - len(row.ids) if pad_left else 0
        at = (index, slice(start, start + len(row.ids)))
        ids[at], camera[at] = torch.tensor(row.ids), torch.tensor(row.camera)
        image[at], real[at] = torch.tensor(row.image), True
        answered[index, start + row.prompt_length : start + len(row.ids)] = True
    return PromptTokens(
        ids_bp=ids, real_bp=real, camera_bp=camera, image_bp=image, answer_bp=answered
    )


@dataclass(frozen=True, slots=True)
class _Markers:
    """Ids of a camera's placeholder, and of the markers before and behind it."""

    placeholder: int
    opening: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: VLMTokenizer, prompt: Prompt) -> _Markers:
        return cls(
            tokenizer.token_id(prompt.image_token),
            tuple(tokenizer.encode(prompt.image_open)),
            tuple(tokenizer.encode(prompt.image_close)),
        )


@dataclass(frozen=True, slots=True)
class _Row:
    ids: list[int]
    camera: list[int]
    image: list[bool]
    prompt_length: int


def _row(
    text: str,
    answer: str | None,
    *,
    tokenizer: VLMTokenizer,
    prompt: Prompt,
    cameras: int,
    tokens_per_camera: int,
    markers: _Markers,
) -> _Row:
    short = tokenizer.encode(prompt.filled(text, cameras=cameras))
    places = [index for index, token in enumerate(short) if token == markers.placeholder]
    if len(places) != cameras:
        raise ObservationError(
            f"the instruction {text[:60]!r} holds {prompt.image_token!r}, a camera's place",
            mend="write the instruction without it",
        )
    owner = [cameras] * len(short)
    for camera, place in enumerate(places):
        first, last = _with_markers(short, place, markers)
        owner[first : last + 1] = [camera] * (last + 1 - first)
    ids: list[int] = []
    camera_of: list[int] = []
    image: list[bool] = []
    for index, token in enumerate(short):
        times = tokens_per_camera if token == markers.placeholder else 1
        ids += [token] * times
        camera_of += [owner[index]] * times
        image += [token == markers.placeholder] * times
    length = len(ids)
    if answer is not None:
        said = tokenizer.encode(prompt.answer_open + answer + prompt.answer_close)
        ids, camera_of = ids + said, camera_of + [cameras] * len(said)
        image += [False] * len(said)
    return _Row(ids, camera_of, image, length)


def _with_markers(ids: list[int], place: int, markers: _Markers) -> tuple[int, int]:
    """First and last token of a camera, as far as the tokens around it are its markers.

    Line breaks can melt into those of the neighbours; then they stay visible.
    """
    first = last = place
    for token in reversed(markers.opening):
        if first == 0 or ids[first - 1] != token:
            break
        first -= 1
    for token in markers.closing:
        if last + 1 == len(ids) or ids[last + 1] != token:
            break
        last += 1
    return first, last
