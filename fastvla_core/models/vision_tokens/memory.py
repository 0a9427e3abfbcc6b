"""What the inferences of one goal leave behind for the next: tokens, keys and values, attention.

Shapes: c cameras, n tokens of one image, i visual tokens of all cameras, p prefix tokens, w width.
The batch is always one observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvla_core.models.vision_tokens.layout import Kept, PrefixLayout
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.models.vision_tokens.pruning import Hints
from fastvla_core.models.vision_tokens.scores import cell_changes, saturated_change

_GREY_LEVELS = 127.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """A camera's image, what conditioned the vision, and the tokens that came of both."""

    image_13hw: Tensor
    condition: Tensor | None
    tokens_1nw: Tensor


@dataclass(frozen=True, slots=True)
class _Known:
    """A value and what it was computed of."""

    inputs: tuple[Tensor, ...]
    value: Any
    inference_mode: bool

    def is_of(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether it was computed of exactly these, and can be used now."""
        # What comes from inference mode cannot be differentiated through, as guidance does.
        if self.inference_mode and not torch.is_inference_mode_enabled():
            return False
        # `torch.equal` is False for other shapes.
        return len(inputs) == len(self.inputs) and all(map(torch.equal, inputs, self.inputs))


@dataclass(slots=True)
class TokenCounts:
    """How often something was asked for, and how often it was there already."""

    cameras: int = 0
    cameras_reused: int = 0
    prefixes: int = 0
    prefixes_reused: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.cameras + other.cameras,
            self.cameras_reused + other.cameras_reused,
            self.prefixes + other.prefixes,
            self.prefixes_reused + other.prefixes_reused,
        )


class TokenMemory:
    """The state of one goal; a new goal starts with a new one.

    Args:
        task: The goal's instruction.

    Attributes:
        task: The goal's instruction.
        counts: Of what was reused.
    """

    def __init__(self, task: str = "") -> None:
        self.task = task
        self.counts = TokenCounts()
        self._cameras: dict[int, _Seen] = {}
        self._images_1c3hw: Tensor | None = None
        self._attention_1i: Tensor | None = None
        self._words: _Known | None = None
        self._prefix: _Known | None = None

    def camera_tokens(
        self,
        images_1c3hw: Tensor,
        look: Callable[[int], Tensor],
        *,
        threshold: float,
        grid: tuple[int, int],
        condition: Tensor | None = None,
    ) -> Tensor:
        """Tokens of all images, [1, c, n, w], computed only for cameras that have changed.

        What a camera shows is compared with the image that its tokens were computed of, not with
        the previous one: many small changes add up.

        Args:
            look: Computes the tokens of one camera, [1, n, w]. One at a time, so that they do not
                depend on which other cameras are computed with it.
            threshold: Largest change of a token's part of the image that is overlooked [grey
                levels].
            grid: Rows and columns of an image's tokens.
            condition: What else the tokens depend on.
        """
        tokens: list[Tensor] = []
        for camera in range(images_1c3hw.shape[1]):
            image = images_1c3hw[:, camera]
            seen = self._cameras.get(camera)
            self.counts.cameras += 1
            if seen is not None and _holds(seen, image, condition, threshold, grid):
                self.counts.cameras_reused += 1
            else:
                seen = _Seen(image, condition, look(camera))
                self._cameras[camera] = seen
            tokens.append(seen.tokens_1nw)
        return torch.stack(tokens, dim=1)

    def words(self, *inputs: Tensor, read: Callable[[], Any]) -> Any:
        """What `read` gives, or gave when it was last called for exactly the same inputs."""
        if self._words is None or not self._words.is_of(inputs):
            self._words = _Known(inputs, read(), torch.is_inference_mode_enabled())
        return self._words.value

    def prefix(self, *inputs: Tensor, read: Callable[[], Any]) -> Any:
        """The same, for the prefix."""
        self.counts.prefixes += 1
        if self._prefix is not None and self._prefix.is_of(inputs):
            self.counts.prefixes_reused += 1
        else:
            self._prefix = _Known(inputs, read(), torch.is_inference_mode_enabled())
        return self._prefix.value

    def is_first_look(self, options: VisionTokens) -> bool:
        """Whether the attention to every token is still to be learnt, by keeping all of them."""
        wanted = options.pruning == "adaptive" and options.weights.attention > 0
        return wanted and self._attention_1i is None

    def hints(self, images_1c3hw: Tensor, layout: PrefixLayout) -> Hints:
        """What the previous inference says about the present tokens."""
        before, change = self._images_1c3hw, None
        if before is not None:
            changes = cell_changes(images_1c3hw, before, rows=layout.rows, columns=layout.columns)
            change = saturated_change(changes)
        return Hints(attention_bi=self._attention_1i, change_bi=change)

    def remember(
        self,
        images_1c3hw: Tensor,
        attention_1q: Tensor,
        *,
        layout: PrefixLayout,
        kept: Kept | None,
    ) -> None:
        """Take note of an inference; a token that was left out keeps the attention it had.

        Args:
            attention_1q: To each token of the prefix that was read.
            kept: Which those were; None for all.
        """
        self._images_1c3hw = images_1c3hw
        places_i = layout.image_places(attention_1q.device)
        if kept is not None:
            missing = torch.zeros_like(kept.mask_bp, dtype=attention_1q.dtype)
            if self._attention_1i is not None:
                missing[:, places_i] = self._attention_1i
            attention_1q = kept.spread(attention_1q, missing=missing)
        self._attention_1i = attention_1q[:, places_i]


def _holds(
    seen: _Seen, image: Tensor, condition: Tensor | None, threshold: float, grid: tuple[int, int]
) -> bool:
    conditions = [c for c in (condition, seen.condition) if c is not None]
    if conditions and not torch.equal(conditions[0], conditions[-1]):
        return False
    if threshold <= 0:
        return torch.equal(image, seen.image_13hw)
    rows, columns = grid
    changes = cell_changes(image[:, None], seen.image_13hw[:, None], rows=rows, columns=columns)
    return float(changes.max()) * _GREY_LEVELS <= threshold
