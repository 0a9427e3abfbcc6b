"""Depth pictures, raw or compressed, as metres."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.foreign_words import clipped
from fastvla_core.robot.packed import unpack

# int32 kind of compression, float32 A and B of the inverse depth; then the file.
_HEADER = struct.Struct("<iff")


def to_metres(pixels: NDArray[Any], *, unit_m: float) -> NDArray[np.float32]:
    """Distances as float32 [H, W] in metres, 0 where nothing was measured.

    Args:
        pixels: uint16 counts of `unit_m`, 0 where nothing was measured; or floats in metres, not
            finite where nothing was measured.
    Source: REP 117, REP 118.
    """
    if pixels.dtype.kind == "u":
        # Rounded once: 1500 mm are 1.5 m.
        return (pixels * np.float64(unit_m)).astype(np.float32)
    metres = pixels.astype(np.float32)
    metres[~(np.isfinite(metres) & (metres > 0))] = 0.0
    return metres


def decode_compressed_depth(
    data: Any, *, format: str, unit_m: float, where: str
) -> NDArray[np.float32]:
    """A depth picture of image_transport's `compressedDepth` or `compressed`, as `to_metres`.

    Args:
        format: For example `16UC1; compressedDepth png`, `32FC1; compressedDepth`,
            `16UC1; png compressed `.

    Raises:
        MessageError: the data is cut short, not a 16-bit PNG, or compressed in another way.
    Source: compressed_depth_image_transport's codec.
    """
    encoding, _, codec = format.partition(";")
    if "compressedDepth" not in codec:
        return to_metres(_counts(data, format=format, where=where), unit_m=unit_m)
    if "rvl" in codec:
        raise MessageError(
            f"{where}: format '{clipped(format)}' is not supported",
            mend="set the publisher's parameter `.compressedDepth.format` to png",
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size <= _HEADER.size:
        raise MessageError(
            f"{where}: {buffer.size} bytes of format '{clipped(format)}' are cut short",
            mend="publish whole pictures (image_transport `compressedDepth`)",
        )
    _, a, b = _HEADER.unpack(bytes(buffer[: _HEADER.size]))
    counts = _counts(buffer[_HEADER.size :], format=format, where=where)
    if encoding.strip() != "32FC1":
        return to_metres(counts, unit_m=unit_m)
    metres = np.zeros(counts.shape, np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # In float32 throughout, as the publisher quantised them.
        np.divide(np.float32(a), counts.astype(np.float32) - np.float32(b), out=metres,
                  where=counts > 0)  # fmt: skip
    return to_metres(metres, unit_m=unit_m)


def _counts(data: Any, *, format: str, where: str) -> NDArray[np.uint16]:
    pixels = unpack(data, format=format, where=where)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise MessageError(
            f"{where}: format '{clipped(format)}' holds {pixels.dtype} {pixels.shape}, "
            "no 16-bit depth",
            mend="publish depth as PNG (image_transport `compressedDepth`); JPEG has 8 bits only",
        )
    return pixels
