"""From the fields of ROS messages to arrays: the same functions for live streams and for bags.

Nothing here knows a message class; callers hand over the fields, so that a live `sensor_msgs/Image`
and one read from a bag become byte-equal arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import CameraSpec, RobotContract

_Convert = Callable[[NDArray[Any]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class _Layout:
    dtype: str
    channels: int
    to_rgb: _Convert


def _colour(code: int) -> _Convert:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _scaled(then: _Convert) -> _Convert:
    # round(v * 255 / 65535) in integers; cv_bridge scales 16 bits to 8 the same way.
    return lambda pixels: then(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _same(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return pixels


_GREY = _colour(cv2.COLOR_GRAY2RGB)
_BGR = _colour(cv2.COLOR_BGR2RGB)
# 8UC3 and 8UC4 name no colour order; they come from OpenCV images, so they are read as BGR(A).
_LAYOUTS = {
    "rgb8": _Layout("u1", 3, _same),
    "bgr8": _Layout("u1", 3, _BGR),
    "8UC3": _Layout("u1", 3, _BGR),
    "rgba8": _Layout("u1", 4, _colour(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Layout("u1", 4, _colour(cv2.COLOR_BGRA2RGB)),
    "8UC4": _Layout("u1", 4, _colour(cv2.COLOR_BGRA2RGB)),
    "mono8": _Layout("u1", 1, _GREY),
    "8UC1": _Layout("u1", 1, _GREY),
    "mono16": _Layout("u2", 1, _scaled(_GREY)),
    "16UC1": _Layout("u2", 1, _scaled(_GREY)),
    "rgb16": _Layout("u2", 3, _scaled(_same)),
    "bgr16": _Layout("u2", 3, _scaled(_BGR)),
    "yuv422": _Layout("u1", 2, _colour(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": _Layout("u1", 2, _colour(cv2.COLOR_YUV2RGB_YUY2)),
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    "bayer_rggb8": _Layout("u1", 1, _colour(cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": _Layout("u1", 1, _colour(cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": _Layout("u1", 1, _colour(cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": _Layout("u1", 1, _colour(cv2.COLOR_BayerGB2RGB)),
}
IMAGE_ENCODINGS = tuple(_LAYOUTS)
"""Every `encoding` that `decode_image` reads."""


def view_image(
    data: Any, *, width: int, height: int, encoding: str, step: int, is_bigendian: int, where: str
) -> NDArray[Any]:
    """The pixels of a `sensor_msgs/Image` as they lie in its buffer, [H, W] or [H, W, C], no copy.

    Args:
        data: bytes, memoryview, array.array or a uint8 array: `step * height` bytes.
        where: Names the camera in an error.

    Raises:
        MessageError: an unknown encoding, a `step` too short for a row, or data of another size
            than `step * height` (which the message's definition demands).
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise MessageError(
            f"{where}: encoding '{encoding}' is not known",
            mend=f"publish one of {', '.join(IMAGE_ENCODINGS)}",
        )
    itemsize = int(layout.dtype[1:])
    row = width * layout.channels * itemsize
    if width <= 0 or height <= 0 or step < row:
        raise MessageError(
            f"{where}: step is {step}, but a row of {width} {encoding} pixels has {row} bytes "
            f"({height} rows)",
            mend="set step to the bytes from one row to the next, padding included",
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != step * height:
        raise MessageError(
            f"{where}: data has {buffer.size} bytes, but step * height = {step} * {height} "
            f"= {step * height}",
            mend="the driver must fill width, height, step and data of the same image",
        )
    shape, strides = (height, width), (step, layout.channels * itemsize)
    if layout.channels > 1:
        shape, strides = (*shape, layout.channels), (*strides, itemsize)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    return np.ndarray(shape, dtype, buffer.data, strides=strides)


def decode_image(
    data: Any, *, width: int, height: int, encoding: str, step: int, is_bigendian: int, where: str
) -> NDArray[np.uint8]:
    """The pixels of a `sensor_msgs/Image` as uint8 [H, W, 3] RGB; rgb8 is a view, never a copy.

    Greyscale is repeated over the channels, 16 bits are scaled to 8.

    Raises:
        MessageError: as `view_image`.
    """
    pixels = view_image(
        data, width=width, height=height, encoding=encoding, step=step,
        is_bigendian=is_bigendian, where=where,
    )  # fmt: skip
    try:
        return _LAYOUTS[encoding].to_rgb(pixels)
    except cv2.error as error:
        raise MessageError(
            f"{where}: {width}x{height} pixels of {encoding} cannot be converted to RGB",
            mend="these encodings want an even width and height",
        ) from error


def decode_compressed(data: Any, *, format: str, where: str) -> NDArray[np.uint8]:
    """The pixels of a `sensor_msgs/CompressedImage` (JPEG or PNG) as uint8 [H, W, 3] RGB.

    Raises:
        MessageError: the data is empty, cut short, or neither JPEG nor PNG.
    """
    buffer = np.frombuffer(data, np.uint8)
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing: look for its end.
    cut = bytes(buffer[:2]) == b"\xff\xd8" and b"\xff\xd9" not in bytes(buffer[-1024:])
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = None if cut or not buffer.size else cv2.imdecode(buffer, flags)
    if bgr is None:
        raise MessageError(
            f"{where}: {buffer.size} bytes of format '{format}' are "
            f"{'cut short' if cut else 'neither JPEG nor PNG'}",
            mend="publish whole JPEG or PNG images (image_transport `compressed`)",
        )
    return _BGR(bgr)


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


def decode_joint_state(
    contract: RobotContract, *, names: Sequence[str], positions: Sequence[float] | NDArray[Any]
) -> NDArray[np.float32]:
    """Joint positions by name, float32 [S] in the order of `contract.state_names`; rad and m.

    Names that the contract does not know are passed over; `joint_states.names` renames.

    Raises:
        MessageError: no names, as many names as positions not given, a name twice or missing,
            a position that is not finite.
    """
    topic = contract.joint_states.topic
    if not names:
        raise MessageError(
            f"{topic}: the message names no joint",
            mend="the driver must fill `name`; positions alone cannot be told apart",
        )
    if len(names) != len(positions):
        raise MessageError(
            f"{topic}: {len(names)} names, but {len(positions)} positions",
            mend="the driver must give one position per name",
        )
    renamed = dict(contract.joint_states.names)
    by_name: dict[str, float] = {}
    for theirs, position in zip(names, positions):
        name = renamed.get(theirs, theirs)
        if name in by_name:
            raise MessageError(f"{topic}: joint '{name}' is there twice")
        by_name[name] = float(position)
    missing = [name for name in contract.state_names if name not in by_name]
    if missing:
        raise MessageError(
            f"{topic}: no position for {', '.join(missing)}; the message has {', '.join(names)}",
            mend="publish all joints in one message, or map the names in joint_states.names",
        )
    state = np.asarray([by_name[name] for name in contract.state_names], np.float32)
    bad = [n for n, value in zip(contract.state_names, state) if not np.isfinite(value)]
    if bad:
        raise MessageError(
            f"{topic}: the position of {', '.join(bad)} is not finite",
            mend="check the encoder or the driver of this joint",
        )
    return state


def pick_stamp(contract: RobotContract, *, header_ns: int, receive_ns: int) -> int:
    """The time [ns] that a sample counts for: `sync.stamp`, or reception where the header is 0."""
    return header_ns if contract.sync.stamp == "header" and header_ns else receive_ns
