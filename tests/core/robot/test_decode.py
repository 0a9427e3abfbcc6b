"""Message fields to arrays: every encoding, strides, endianness, and what is refused."""

from __future__ import annotations

import array
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.decode import check_camera, decode_compressed, message_to_rgb
from fastvla_core.robot.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS, LAYOUTS

CONTRACT = load_contract("tabletop")
W, H = 6, 4
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
GREY = RGB[..., 0]


def decode(data, *, encoding, step, width=W, height=H, is_bigendian=0):
    message = SimpleNamespace(
        data=data, width=width, height=height, encoding=encoding, step=step,
        is_bigendian=is_bigendian,
    )  # fmt: skip
    return message_to_rgb(message, "camera 'front'")


def with_alpha(rgb):
    return np.dstack([rgb, np.full((H, W), 7, np.uint8)])


GREY_AS_RGB = np.repeat(GREY[..., None], 3, axis=2)
COLOURS = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "8UC3": (RGB[..., ::-1], RGB),
    "rgba8": (with_alpha(RGB), RGB),
    "bgra8": (with_alpha(RGB[..., ::-1]), RGB),
    "8UC4": (with_alpha(RGB[..., ::-1]), RGB),
    "mono8": (GREY, GREY_AS_RGB),
    "8UC1": (GREY, GREY_AS_RGB),
    "mono16": (GREY.astype("<u2") * 257, GREY_AS_RGB),
    "16UC1": (GREY.astype("<u2") * 257 + 128, GREY_AS_RGB),
    "rgb16": (RGB.astype("<u2") * 257, RGB),
    "bgr16": (RGB[..., ::-1].astype("<u2") * 257, RGB),
    "rgba16": (with_alpha(RGB).astype("<u2") * 257, RGB),
    "bgra16": (with_alpha(RGB[..., ::-1]).astype("<u2") * 257, RGB),
}


def padded(pixels, *, padding):
    """Rows of `pixels` with noise behind them, as one buffer, and its step."""
    rows = np.ascontiguousarray(pixels).reshape(H, -1).view(np.uint8)
    noise = np.full((H, padding), 0xAB, np.uint8)
    return np.hstack([rows, noise]).tobytes(), rows.shape[1] + padding


@pytest.mark.parametrize("padding", [0, 1, 10])
@pytest.mark.parametrize("encoding", COLOURS)
def test_every_colour_encoding_gives_its_rgb(encoding: str, padding: int):
    pixels, expected = COLOURS[encoding]
    data, step = padded(pixels, padding=padding)
    got = decode(data, encoding=encoding, step=step)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("encoding", [name for name in COLOURS if name.endswith(("16", "16UC1"))])
def test_big_endian_pixels_are_swapped(encoding: str):
    pixels, expected = COLOURS[encoding]
    data, step = padded(pixels.astype(">u2"), padding=2)
    got = decode(data, encoding=encoding, step=step, is_bigendian=1)
    np.testing.assert_array_equal(got, expected)


@given(st.integers(0, 65535))
def test_sixteen_bits_are_scaled_as_opencv_scales_them(value: int):
    data = np.full((H, W), value, "<u2").tobytes()
    expected = cv2.convertScaleAbs(np.full((1, 1), value, np.float64), alpha=255 / 65535)
    assert decode(data, encoding="mono16", step=2 * W)[0, 0, 0] == expected[0, 0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_keep_a_flat_colour(order: str, bits: int):
    colour = {"r": 200, "g": 100, "b": 50}
    cell = np.array([[colour[c] for c in order[:2]], [colour[c] for c in order[2:]]])
    pixels = np.tile(cell, (4, 4)).astype(np.uint8 if bits == 8 else "<u2")
    data = (pixels if bits == 8 else pixels * 257).tobytes()
    got = decode(data, encoding=f"bayer_{order}{bits}", step=bits, width=8, height=8)
    np.testing.assert_array_equal(got[4, 4], [200, 100, 50])


def test_sixteen_bit_bayer_of_either_byte_order_is_the_same():
    pixels = np.random.default_rng(1).integers(0, 65536, (8, 8), np.uint16)
    got = [
        decode(pixels.astype(order).tobytes(), encoding="bayer_rggb16", step=16, width=8, height=8,
               is_bigendian=order == ">u2")
        for order in ("<u2", ">u2")
    ]  # fmt: skip
    np.testing.assert_array_equal(*got)


def yuv(rgb):
    """BT.601 as video has it: Y, U, V, each [H, W]."""
    blue, green, red = rgb[..., 2], rgb[..., 1], rgb[..., 0]
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    return (np.round(plane).astype(np.uint8) for plane in (luma, u, v))


def packed_422(first, second, rgb):
    luma, u, v = yuv(rgb)
    chroma = np.where(np.arange(rgb.shape[1]) % 2 == 0, u, v)
    planes = {"y": luma, "c": chroma}
    return np.dstack([planes[first], planes[second]])


def planar_420(first, rgb):
    luma, u, v = yuv(rgb)
    pair = (u, v) if first == "u" else (v, u)
    chroma = np.dstack([plane[::2, ::2] for plane in pair]).reshape(rgb.shape[0] // 2, -1)
    return np.vstack([luma, chroma])


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("yuv422", lambda rgb: packed_422("c", "y", rgb)),
        ("uyvy", lambda rgb: packed_422("c", "y", rgb)),
        ("yuv422_yuy2", lambda rgb: packed_422("y", "c", rgb)),
        ("yuyv", lambda rgb: packed_422("y", "c", rgb)),
        ("nv12", lambda rgb: planar_420("u", rgb)),
        ("nv21", lambda rgb: planar_420("v", rgb)),
    ],
)
def test_yuv_gives_its_colour(encoding: str, pack, padding: int):
    colours = np.array([[200, 30, 60], [20, 180, 90], [40, 60, 220]], np.float64)
    rgb = np.repeat(np.repeat(colours[None], 4, axis=0), 2, axis=1)
    rows = pack(rgb).reshape(pack(rgb).shape[0], -1)
    data = np.hstack([rows, np.full((len(rows), padding), 0xAB, np.uint8)]).tobytes()
    got = decode(data, encoding=encoding, step=rows.shape[1] + padding)
    np.testing.assert_allclose(got, rgb, atol=3)


def test_a_planar_image_without_its_colours_is_named():
    with pytest.raises(MessageError, match=r"step \* height \* 3 / 2 = 6 \* 4 \* 3 / 2 = 36"):
        decode(bytes(24), encoding="nv12", step=6)


def test_distances_have_no_colour():
    with pytest.raises(MessageError, match="kind: depth"):
        decode(bytes(4 * W * H), encoding="32FC1", step=4 * W)


def test_rgb8_is_a_view_of_the_buffer_whatever_holds_it():
    pixels = RGB.copy()
    got = decode(memoryview(pixels).cast("B"), encoding="rgb8", step=3 * W)
    assert np.shares_memory(got, pixels)
    for data in (array.array("B", RGB.tobytes()), bytearray(RGB.tobytes()), RGB.reshape(-1)):
        np.testing.assert_array_equal(decode(data, encoding="rgb8", step=3 * W), RGB)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb9"}, ["camera 'front'", "rgb9", "bgr8"]),
        ({"encoding": ""}, ["camera 'front'", "encoding ''"]),
        ({"step": 3 * W - 1}, ["step is 17", "18 bytes"]),
        ({"step": 0}, ["step is 0"]),
        ({"step": 3 * W + 1}, ["72 bytes", "step * height = 19 * 4"]),
        ({"data": RGB.tobytes()[:-1]}, ["71 bytes", "= 72"]),
        ({"data": b""}, ["0 bytes"]),
        ({"width": 0}, ["camera 'front'"]),
    ],
)
def test_a_broken_image_is_named(change: dict, words: list[str]):
    fields = {"data": RGB.tobytes(), "encoding": "rgb8", "step": 3 * W, **change}
    with pytest.raises(MessageError) as caught:
        decode(fields.pop("data"), **fields)
    assert caught.value.mend
    for word in words:
        assert word in str(caught.value)


def test_an_odd_yuv_image_is_a_message_error_not_opencv_s():
    with pytest.raises(MessageError, match="even width"):
        decode(bytes(2 * 5 * 4), encoding="yuv422", step=10, width=5)


def test_every_encoding_is_a_colour_or_a_distance():
    assert set(LAYOUTS) == {*COLOR_ENCODINGS, *DEPTH_ENCODINGS}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images(suffix: str):
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :12] = (200, 30, 60)
    data = cv2.imencode(suffix, image[..., ::-1])[1].tobytes()
    got = decode_compressed(data, format=suffix[1:], where="camera 'front'")
    assert got.shape == image.shape
    np.testing.assert_allclose(got.astype(int), image, atol=0 if suffix == ".png" else 60)
    assert got[8, 2, 0] > 150


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_cut_compressed_image_is_refused(suffix: str):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    for broken in (data[: len(data) // 2], b"", b"not an image"):
        with pytest.raises(MessageError, match="camera 'front'"):
            decode_compressed(broken, format="jpeg", where="camera 'front'")


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


BGR = np.ascontiguousarray(RGB[..., ::-1])
DEEP = BGR.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("pixels", "format", "expected"),
    [
        (BGR, "png", RGB),
        (BGR, "rgb8; png compressed bgr8", RGB),
        (BGR, "bgr8; png compressed bgr8", RGB),
        (BGR, "bgr8;png compressed bgr8", RGB),
        (BGR, "", RGB),
        (RGB, "rgb8; png compressed rgb8", RGB),
        (with_alpha(BGR), "bgra8; png compressed bgra8", RGB),
        (DEEP, "bgr16; png compressed bgr16", RGB),
        (RGB.astype(np.uint16) * 257, "rgb16; png compressed rgb16", RGB),
        (GREY, "mono8; png compressed ", GREY_AS_RGB),
        (GREY.astype(np.uint16) * 257, "mono16; png compressed ", GREY_AS_RGB),
        (GREY, "bayer_rggb8; png compressed ",
         cv2.cvtColor(GREY, cv2.COLOR_BayerBG2RGB)),
        # What the format says was compressed does not fit what is there: it is taken for grey.
        (GREY, "bayer_rggb16; png compressed ", GREY_AS_RGB),
    ],
)  # fmt: skip
def test_every_form_of_the_compressed_format(pixels, format: str, expected):
    got = decode_compressed(png(pixels), format=format, where="camera 'front'")
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_wherever_a_compressed_image_is_cut_it_is_refused(suffix: str):
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    for end in [*range(0, len(data) - 12, 97), len(data) - 12, len(data) - 9]:
        with pytest.raises(MessageError, match="camera 'front'"):
            decode_compressed(data[:end], format="jpeg", where="camera 'front'")


def test_a_picture_of_an_absurd_size_is_refused():
    data = bytearray(png(BGR))
    # Width and height of the header, with a checksum that fits.
    data[16:24] = struct.pack(">II", 1 << 20, 1 << 20)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(MessageError, match="camera 'front'"):
        decode_compressed(bytes(data), format="png", where="camera 'front'")


def test_a_padded_jpeg_is_whole():
    image = np.full((16, 16, 3), 90, np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes() + bytes(100)
    assert decode_compressed(data, format="jpeg", where="c").shape == (16, 16, 3)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
def test_noise_is_refused_and_never_a_crash(noise: bytes, start: bytes):
    with pytest.raises(MessageError):
        decode_compressed(start + noise, format="jpeg", where="camera 'front'")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 96, "height": 96, "encoding": "bgr8"}, ["bgr8", "cameras.front.encoding"]),
        ({"width": 95, "height": 96, "encoding": "rgb8"}, ["95x96", "96x96"]),
        ({"width": 96, "height": 1}, ["96x1"]),
    ],
)
def test_an_image_that_is_not_the_contract_s_is_refused(fields: dict, words: list[str]):
    with pytest.raises(MessageError) as caught:
        check_camera(CONTRACT.camera("front"), **fields)
    for word in ["'front'", *words]:
        assert word in str(caught.value)
