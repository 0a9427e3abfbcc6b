"""Depth pictures in every form become the same metres."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import CameraSpec
from fastvla_core.robot.decode import decode_camera

W, H = 8, 6
MM = np.random.default_rng(0).integers(300, 4000, (H, W)).astype(np.uint16)
MM[0, 0] = 0
METRES = (MM * 0.001).astype(np.float32)


def camera(**changes) -> CameraSpec:
    fields = {"name": "depth", "topic": "depth", "encoding": "16UC1", "kind": "depth"}
    return CameraSpec(**{**fields, "width": W, "height": H, **changes})


def raw(pixels: np.ndarray, encoding: str, *, is_bigendian: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        data=pixels.tobytes(), width=W, height=H, encoding=encoding,
        step=W * pixels.itemsize, is_bigendian=is_bigendian,
    )  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def compressed(data: bytes, format: str) -> SimpleNamespace:
    return SimpleNamespace(data=data, format=format)


def inverse_depth(metres: np.ndarray, *, quantization: float = 100.0, furthest: float = 10.0):
    """As compressed_depth_image_transport writes 32FC1."""
    a = np.float32(quantization * (quantization + 1.0))
    b = np.float32(1.0) - a / np.float32(furthest)
    with np.errstate(divide="ignore", invalid="ignore"):
        counts = np.where(metres < furthest, a / metres + b, 0)
    return struct.pack("<iff", 0, a, b) + png(np.nan_to_num(counts, posinf=0).astype(np.uint16))


@pytest.mark.parametrize(
    "message",
    [
        raw(MM, "16UC1"),
        raw(MM.astype(">u2"), "16UC1", is_bigendian=1),
        compressed(bytes(12) + png(MM), "16UC1; compressedDepth png"),
        compressed(bytes(12) + png(MM), "16UC1; compressedDepth"),
        compressed(png(MM), "16UC1; png compressed "),
    ],
)
def test_millimetres_become_metres(message):
    got = decode_camera(camera(), message)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, METRES)


def test_another_unit_is_the_contract_s():
    got = decode_camera(camera(depth_unit_m=0.00025), raw(MM, "16UC1"))
    np.testing.assert_array_equal(got, (MM * 0.00025).astype(np.float32))


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_what_was_not_measured_is_zero(order: str):
    metres = np.full((H, W), 1.25, np.float32)
    metres[0, :4] = [np.nan, np.inf, -np.inf, -1.0]
    expected = metres.copy()
    expected[0, :4] = 0.0
    message = raw(metres.astype(order), "32FC1", is_bigendian=order == ">f4")
    np.testing.assert_array_equal(decode_camera(camera(encoding="32FC1"), message), expected)


@pytest.mark.parametrize("format", ["32FC1; compressedDepth png", "32FC1; compressedDepth"])
def test_inverse_depth_is_read_back(format: str):
    metres = METRES.copy()
    metres[0, :2] = [np.nan, 50.0]
    depth = camera(encoding="32FC1", transport="compressed_depth")
    got = decode_camera(depth, compressed(inverse_depth(metres), format))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0, :2], [0.0, 0.0])
    # One count of inverse depth is metres^2 / A.
    np.testing.assert_allclose(got[1:], metres[1:], atol=4.0**2 / 10_100 + 1e-4)


@pytest.mark.parametrize(
    ("data", "format", "words"),
    [
        (bytes(12), "16UC1; compressedDepth png", "12 bytes .* cut short"),
        (b"", "16UC1; compressedDepth png", "cut short"),
        (bytes(12) + png(MM)[:-20], "16UC1; compressedDepth png", "cut short"),
        (bytes(40), "16UC1; compressedDepth png", "neither JPEG nor PNG"),
        (bytes(12) + png(MM), "16UC1; compressedDepth rvl", "rvl"),
        (png(MM.astype(np.uint8)), "16UC1; png compressed ", "no 16-bit depth"),
        (png(np.dstack([MM] * 3)), "16UC1; png compressed ", "no 16-bit depth"),
        (struct.pack("<iff", 0, float("nan"), 0.0) + b"x", "32FC1; compressedDepth", "neither"),
    ],
)
def test_broken_depth_is_named(data: bytes, format: str, words: str):
    with pytest.raises(MessageError, match=words) as caught:
        decode_camera(camera(), compressed(data, format))
    assert "camera 'depth'" in str(caught.value)
    assert caught.value.mend


def test_senseless_quantisation_measures_nothing():
    data = struct.pack("<iff", 0, float("nan"), float("inf")) + png(MM)
    got = decode_camera(camera(), compressed(data, "32FC1; compressedDepth png"))
    assert not got.any()


def test_a_depth_picture_of_another_size_or_encoding_is_refused():
    with pytest.raises(MessageError, match="8x6, the contract says 9x6"):
        decode_camera(camera(width=W + 1), compressed(png(MM), "16UC1; png compressed "))
    with pytest.raises(MessageError, match="encoding '16UC1', the contract says '32FC1'"):
        decode_camera(camera(encoding="32FC1"), raw(MM, "16UC1"))
