"""From image messages to arrays: the same functions for live streams and for bags.

Nothing here knows a message class; any object with the fields will do, so that a live
`sensor_msgs/Image` and one read from a bag become byte-equal arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import CameraSpec
from fastvla_core.robot.depth import decode_compressed_depth, to_metres
from fastvla_core.robot.encodings import COLOR_ENCODINGS, LAYOUTS, view_image
from fastvla_core.robot.foreign_words import clipped
from fastvla_core.robot.packed import ColorOrder, is_cut, unpack, unpack_color_jpeg

# The order to ask for, so that what was compressed in the other comes out as RGB.
_TO_RGB: dict[str, ColorOrder] = {"bgr": "RGB", "rgb": "BGR"}


def decode_camera(
    camera: CameraSpec,
    message: Any,
    *,
    to_rgb: Callable[[Any, str], NDArray[np.uint8]] | None = None,
) -> NDArray[Any]:
    """A message of one of the contract's cameras, raw or compressed, whatever the contract says.

    Args:
        to_rgb: Replaces `message_to_rgb` for raw colour images.

    Returns:
        uint8 [H, W, 3] RGB of a colour camera, float32 [H, W] of a depth camera: metres, 0 where
        nothing was measured.

    Raises:
        MessageError: the message breaks its own rules or is not what the contract says.
    """
    where = f"camera '{camera.name}'"
    if hasattr(message, "format"):
        pixels = _compressed(camera, message, where)
        check_camera(camera, width=pixels.shape[1], height=pixels.shape[0])
        return pixels
    check_camera(camera, width=message.width, height=message.height, encoding=message.encoding)
    if camera.kind == "depth":
        return to_metres(view_message(message, where), unit_m=camera.depth_unit_m)
    return (to_rgb or message_to_rgb)(message, where)


def view_message(message: Any, where: str) -> NDArray[Any]:
    """The pixels of an Image message as they lie in its buffer; see `view_image`."""
    return view_image(
        message.data, width=message.width, height=message.height, encoding=message.encoding,
        step=message.step, is_bigendian=message.is_bigendian, where=where,
    )  # fmt: skip


def message_to_rgb(message: Any, where: str) -> NDArray[np.uint8]:
    """The pixels of an Image message as uint8 [H, W, 3] RGB; rgb8 is a view, never a copy.

    Greyscale is repeated over the channels, 16 bits are scaled to 8.

    Raises:
        MessageError: as `view_image`, or the encoding has no colour.
    """
    return _to_rgb(view_message(message, where), message.encoding, where)


def decode_compressed(data: Any, *, format: str, where: str) -> NDArray[np.uint8]:
    """The pixels of a `sensor_msgs/CompressedImage` (JPEG or PNG) as uint8 [H, W, 3] RGB.

    Args:
        format: For example `jpeg`, `rgb8; jpeg compressed bgr8`, `mono16; png compressed `.

    Raises:
        MessageError: the data is empty, cut short, or neither JPEG nor PNG.
    Source: compressed_image_transport's subscriber.
    """
    original, _, codec = format.partition(";")
    # Files are read as BGR; who compressed RGB pixels as if they were BGR says so.
    order = "rgb" if "compressed rgb" in codec else "bgr"
    colors = None if is_cut(data) else unpack_color_jpeg(data, order=_TO_RGB[order])
    if colors is not None:
        return colors
    pixels = unpack(data, format=format, where=where)
    deep = pixels.dtype == np.uint16
    if pixels.ndim == 2:
        name = "mono16" if deep else "mono8"
        layout = LAYOUTS.get(original.strip())
        # A Bayer mosaic is compressed as it is.
        if original.startswith("bayer_") and layout is not None and layout.dtype == pixels.dtype:
            name = original.strip()
    elif pixels.shape[2] == 4:
        name = "bgra16" if deep else "bgra8"
    else:
        name = f"{order}{16 if deep else 8}"
    return _to_rgb(pixels, name, where)


def check_camera(
    camera: CameraSpec, *, width: int, height: int, encoding: str | None = None
) -> None:
    """Compare an image with what the contract says about its camera.

    Args:
        encoding: The message's; None for compressed images, which carry their own.

    Raises:
        MessageError: another size or another encoding than the contract's.
    """
    if encoding is not None and encoding != camera.encoding:
        encoding = clipped(encoding)
        raise MessageError(
            f"camera '{camera.name}' sends encoding '{encoding}', the contract says "
            f"'{camera.encoding}'",
            mend=f"set cameras.{camera.name}.encoding: {encoding} in the contract, or change "
            "the driver",
        )
    if (width, height) != (camera.width, camera.height):
        raise MessageError(
            f"camera '{camera.name}' sends {width}x{height}, the contract says "
            f"{camera.width}x{camera.height}",
            mend=f"correct cameras.{camera.name}.width and .height, or change the driver",
        )


def _compressed(camera: CameraSpec, message: Any, where: str) -> NDArray[Any]:
    if camera.kind == "color":
        return decode_compressed(message.data, format=message.format, where=where)
    return decode_compressed_depth(
        message.data, format=message.format, unit_m=camera.depth_unit_m, where=where
    )


def _to_rgb(pixels: NDArray[Any], encoding: str, where: str) -> NDArray[np.uint8]:
    convert = LAYOUTS[encoding].to_rgb
    if convert is None:
        raise MessageError(
            f"{where}: encoding '{encoding}' has no colour",
            mend="set `kind: depth` of this camera in the contract, or publish one of "
            f"{', '.join(COLOR_ENCODINGS)}",
        )
    try:
        return convert(pixels)
    except cv2.error as error:
        height, width = pixels.shape[:2]
        raise MessageError(
            f"{where}: {width}x{height} pixels of {encoding} cannot be converted to RGB",
            mend="these encodings want an even width and height",
        ) from error
