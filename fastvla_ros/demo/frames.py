"""The picture of the video: all cameras side by side, with the goal and the state written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SCENE_WIDTH, CAMERA_HEIGHT = 512, 384
SIDE = 192
TITLE_HEIGHT, STATE_HEIGHT = 40, 24
WIDTH = SCENE_WIDTH + SIDE
HEIGHT = TITLE_HEIGHT + CAMERA_HEIGHT + STATE_HEIGHT

_BACKGROUND = (24, 26, 30)
_TEXT = (240, 240, 240)
_DIM = (165, 172, 180)
_BADGES = {
    "success": ((34, 139, 84), "SUCCESS"),
    "failure": ((190, 54, 52), "FAILED"),
    "unknown": ((150, 120, 40), "UNDECIDED"),
}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What is written into a frame; `outcome` is "" while the goal is under way."""

    title: str = ""
    state: str = ""
    outcome: str = ""


def compose(images: Mapping[str, NDArray[np.uint8]], caption: Caption) -> NDArray[np.uint8]:
    """One frame, uint8 [HEIGHT, WIDTH, 3], RGB; a camera that is missing stays dark.

    Args:
        images: uint8 [H, W, 3] under `scene`, `front` and `wrist`, of any size.
    """
    frame = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    places = {
        "scene": (0, TITLE_HEIGHT, SCENE_WIDTH, CAMERA_HEIGHT),
        "front": (SCENE_WIDTH, TITLE_HEIGHT, SIDE, SIDE),
        "wrist": (SCENE_WIDTH, TITLE_HEIGHT + SIDE, SIDE, SIDE),
    }
    for name, (x, y, width, height) in places.items():
        if name in images:
            enlarged = cv2.resize(images[name], (width, height), interpolation=cv2.INTER_CUBIC)
            frame[y : y + height, x : x + width] = enlarged
        _write(frame, name, (x + 7, y + height - 8), scale=0.42, colour=_TEXT, shadow=True)
    _write(frame, caption.title, (10, 27), scale=0.62, colour=_TEXT)
    _write(frame, caption.state, (10, HEIGHT - 8), scale=0.42, colour=_DIM)
    if caption.outcome in _BADGES:
        _badge(frame, *_BADGES[caption.outcome])
    return frame


def _write(
    frame: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    *,
    scale: float,
    colour: tuple[int, int, int],
    shadow: bool = False,
) -> None:
    if shadow:
        cv2.putText(frame, text, at, _FONT, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(frame, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def _badge(frame: NDArray[np.uint8], colour: tuple[int, int, int], text: str) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.55, 1)
    left, right = WIDTH - width - 28, WIDTH - 8
    cv2.rectangle(frame, (left, 7), (right, TITLE_HEIGHT - 7), colour, -1)
    baseline = (TITLE_HEIGHT + height) // 2
    _write(frame, text, (left + 10, baseline), scale=0.55, colour=_TEXT)
