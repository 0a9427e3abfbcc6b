"""JPEG and PNG files in messages and in caches, as pixels.

OpenCV reads them all. Colour JPEG is read by simplejpeg where that is installed: both are
libjpeg-turbo and give the same pixels, but it takes a tenth to a fifth less time, gives RGB at
once, and writes where it is told to.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.foreign_words import clipped

# A file's start and what must stand near its end. OpenCV fills the missing part of a cut file
# with grey and says nothing; drivers may pad what they send.
JPEG_START = b"\xff\xd8"
_ENDS = {JPEG_START: b"\xff\xd9", b"\x89PNG": b"IEND"}
_TAIL = 1024
# More than cameras have. OpenCV refuses absurd sizes; simplejpeg would fill the memory.
_MOST_PIXELS = 1 << 26

ColorOrder: TypeAlias = Literal["RGB", "BGR"]
Size: TypeAlias = tuple[int, int]
"""Height and width."""


def is_cut(data: Any) -> bool:
    """Whether the end of a JPEG or PNG file is missing; other data is not judged."""
    buffer = np.frombuffer(data, np.uint8)
    start = bytes(buffer[:4])
    for head, end in _ENDS.items():
        if start.startswith(head):
            return end not in bytes(buffer[-_TAIL:])
    return False


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


def unpack_color_jpeg(
    data: Any,
    *,
    order: ColorOrder = "RGB",
    out: NDArray[np.uint8] | None = None,
    size: Size | None = None,
    divisor: int = 1,
) -> NDArray[np.uint8] | None:
    """The pixels of a colour JPEG file, uint8 [H, W, 3]; None where OpenCV has to be asked.

    That is another kind of file, a damaged one, one that does not fit `out` or `size`, or any
    where simplejpeg is not installed.

    Args:
        data: As in `unpack`.
        out: Where to put them, contiguous.
        size: What the file must have.
        divisor: 2, 4 or 8 for a picture of that part of the file's size, rounded up: libjpeg then
            unpacks less, and gives the means of its blocks.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        fits = out is None or out.shape == (height, width, 3)
        fits = fits and size in (None, (height, width))
        if colors != "YCbCr" or height * width > _MOST_PIXELS or not fits:
            return None
        if divisor == 1:
            return simplejpeg.decode_jpeg(data, order, buffer=out)
        # The smallest size that is not below this, which is this.
        height, width = -(-height // divisor), -(-width // divisor)
        return simplejpeg.decode_jpeg(data, order, min_height=height, min_width=width)
    # Of anything that is odd, even where libjpeg only warns.
    except ValueError:
        return None


def unpack_rgb_into(out: NDArray[np.uint8], data: NDArray[np.uint8]) -> bool:
    """Unpack a JPEG file into uint8 [H, W, 3] RGB; whether it is one, and of that size.

    Its pixels are those of a `sensor_msgs/CompressedImage` that holds the same file.
    """
    if unpack_color_jpeg(data, out=out) is not None:
        return True
    try:
        # As in messages, a camera that was held upright is not turned.
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return False
    if pixels is None or pixels.shape != out.shape:
        return False
    out[...] = pixels
    return True


@functools.cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _decode(buffer: NDArray[np.uint8]) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        # A size that no camera has: OpenCV refuses it instead of saying that it cannot read it.
        return None
