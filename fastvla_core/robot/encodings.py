"""The encodings of `sensor_msgs/Image`: how pixels lie in memory and become RGB or metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.foreign_words import clipped

_Convert = Callable[[NDArray[Any]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Layout:
    """One encoding.

    Attributes:
        dtype: Of one value, without its byte order.
        channels: Values of one pixel.
        to_rgb: Pixels as uint8 [H, W, 3]; None for what has no colour.
        half_rows: Rows of the buffer per two rows of the picture; planar formats have more than 2.
    """

    dtype: str
    channels: int
    to_rgb: _Convert | None
    half_rows: int = 2


def _colour(code: int) -> _Convert:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    # round(v * 255 / 65535) in integers; cv_bridge scales 16 bits to 8 the same way.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _scaled(then: _Convert) -> _Convert:
    return lambda pixels: then(_eight_bits(pixels))


def _scaled_bayer(code: int) -> _Convert:
    # Interpolated in all 16 bits; OpenCV knows no other byte order than the machine's.
    return lambda pixels: _eight_bits(cv2.cvtColor(pixels.astype(np.uint16), code))


def _same(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return pixels


_GREY = _colour(cv2.COLOR_GRAY2RGB)
_BGR = _colour(cv2.COLOR_BGR2RGB)
_RGBA = _colour(cv2.COLOR_RGBA2RGB)
_BGRA = _colour(cv2.COLOR_BGRA2RGB)
_UYVY = _colour(cv2.COLOR_YUV2RGB_UYVY)
_YUYV = _colour(cv2.COLOR_YUV2RGB_YUY2)
# OpenCV names a Bayer pattern by its second row, ROS by its first.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
# 8UC3 and 8UC4 name no colour order; they come from OpenCV images, so they are read as BGR(A).
LAYOUTS = {
    "rgb8": Layout("u1", 3, _same),
    "bgr8": Layout("u1", 3, _BGR),
    "8UC3": Layout("u1", 3, _BGR),
    "rgba8": Layout("u1", 4, _RGBA),
    "bgra8": Layout("u1", 4, _BGRA),
    "8UC4": Layout("u1", 4, _BGRA),
    "mono8": Layout("u1", 1, _GREY),
    "8UC1": Layout("u1", 1, _GREY),
    "mono16": Layout("u2", 1, _scaled(_GREY)),
    "16UC1": Layout("u2", 1, _scaled(_GREY)),
    "32FC1": Layout("f4", 1, None),
    "rgb16": Layout("u2", 3, _scaled(_same)),
    "bgr16": Layout("u2", 3, _scaled(_BGR)),
    "rgba16": Layout("u2", 4, _scaled(_RGBA)),
    "bgra16": Layout("u2", 4, _scaled(_BGRA)),
    # `yuv422` and `yuv422_yuy2` are what `uyvy` and `yuyv` were called before Iron.
    "yuv422": Layout("u1", 2, _UYVY),
    "uyvy": Layout("u1", 2, _UYVY),
    "yuv422_yuy2": Layout("u1", 2, _YUYV),
    "yuyv": Layout("u1", 2, _YUYV),
    "nv12": Layout("u1", 1, _colour(cv2.COLOR_YUV2RGB_NV12), half_rows=3),
    "nv21": Layout("u1", 1, _colour(cv2.COLOR_YUV2RGB_NV21), half_rows=3),
    **{f"bayer_{order}8": Layout("u1", 1, _colour(code)) for order, code in _BAYER.items()},
    **{f"bayer_{order}16": Layout("u2", 1, _scaled_bayer(code)) for order, code in _BAYER.items()},
}
COLOR_ENCODINGS = tuple(name for name, layout in LAYOUTS.items() if layout.to_rgb is not None)
"""What becomes RGB."""
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
"""What becomes metres."""


def view_image(
    data: Any, *, width: int, height: int, encoding: str, step: int, is_bigendian: int, where: str
) -> NDArray[Any]:
    """The pixels of a `sensor_msgs/Image` as they lie in its buffer, no copy.

    Args:
        data: bytes, memoryview, array.array or a uint8 array: `step * height` bytes (half as
            many again for the planar nv12 and nv21).
        where: Names the camera in an error.

    Returns:
        [H, W], [H, W, C], or [H * 3 / 2, W] for nv12 and nv21.

    Raises:
        MessageError: an unknown encoding, a `step` too short for a row, or data of another size
            than the message's definition demands.
    """
    layout = LAYOUTS.get(encoding)
    if layout is None:
        raise MessageError(
            f"{where}: encoding '{clipped(encoding)}' is not known",
            mend=f"publish one of {', '.join(LAYOUTS)}",
        )
    itemsize = int(layout.dtype[1:])
    row = width * layout.channels * itemsize
    if width <= 0 or height <= 0 or step < row:
        raise MessageError(
            f"{where}: step is {step}, but a row of {width} {encoding} pixels has {row} bytes "
            f"({height} rows)",
            mend="set step to the bytes from one row to the next, padding included",
        )
    rows = height * layout.half_rows // 2
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != step * rows:
        planes = "" if rows == height else " * 3 / 2"
        raise MessageError(
            f"{where}: data has {buffer.size} bytes, but step * height{planes} = {step} * "
            f"{height}{planes} = {step * rows}",
            mend="the driver must fill width, height, step and data of the same image",
        )
    shape, strides = (rows, width), (step, layout.channels * itemsize)
    if layout.channels > 1:
        shape, strides = (*shape, layout.channels), (*strides, itemsize)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    return np.ndarray(shape, dtype, buffer.data, strides=strides)
