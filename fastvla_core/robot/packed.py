"""JPEG and PNG files in messages, as pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.foreign_words import clipped

# A file's start and what must stand near its end. OpenCV fills the missing part of a cut file
# with grey and says nothing; drivers may pad what they send.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
_TAIL = 1024


def is_cut(data: Any) -> bool:
    """Whether the end of a JPEG or PNG file is missing; other data is not judged."""
    buffer = np.frombuffer(data, np.uint8)
    start, tail = bytes(buffer[:4]), bytes(buffer[-_TAIL:])
    return any(start.startswith(head) and end not in tail for head, end in _ENDS.items())


def unpack(data: Any, *, format: str, where: str) -> NDArray[Any]:
    """The pixels of a JPEG or PNG file, uint8 or uint16, [H, W] or [H, W, C] in OpenCV's order.

    Args:
        data: bytes, memoryview, array.array or a uint8 array.
        format: Of the message, for the error.

    Raises:
        MessageError: the data is empty, cut short, or neither JPEG nor PNG.
    """
    buffer = np.frombuffer(data, np.uint8)
    cut = is_cut(buffer)
    pixels = None if cut or not buffer.size else _decode(buffer)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise MessageError(
            f"{where}: {buffer.size} bytes of format '{clipped(format)}' are "
            f"{'cut short' if cut else 'neither JPEG nor PNG'}",
            mend="publish whole JPEG or PNG images (image_transport `compressed`)",
        )
    return pixels


def _decode(buffer: NDArray[np.uint8]) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        # A size that no camera has: OpenCV refuses it instead of saying that it cannot read it.
        return None
