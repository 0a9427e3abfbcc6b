"""Message fields to arrays: every encoding, strides, endianness, and what is refused."""

from __future__ import annotations

import array
import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.decode import (
    IMAGE_ENCODINGS,
    check_camera,
    decode_compressed,
    decode_image,
    decode_joint_state,
    pick_stamp,
)

CONTRACT = load_contract("tabletop")
W, H = 6, 4
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
GREY = RGB[..., 0]


def decode(data, *, encoding, step, width=W, height=H, is_bigendian=0):
    return decode_image(
        data, width=width, height=height, encoding=encoding, step=step,
        is_bigendian=is_bigendian, where="camera 'front'",
    )  # fmt: skip


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


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "rgb16", "bgr16"])
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


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_keep_a_flat_colour(order: str):
    colour = {"r": 200, "g": 100, "b": 50}
    cell = np.array([[colour[c] for c in order[:2]], [colour[c] for c in order[2:]]], np.uint8)
    data = np.tile(cell, (4, 4)).tobytes()
    got = decode(data, encoding=f"bayer_{order}8", step=8, width=8, height=8)
    np.testing.assert_array_equal(got[4, 4], [200, 100, 50])


@pytest.mark.parametrize(("encoding", "luma_at"), [("yuv422", 1), ("yuv422_yuy2", 0)])
def test_yuv_without_colour_is_grey(encoding: str, luma_at: int):
    pixels = np.full((H, W, 2), 128, np.uint8)
    pixels[..., luma_at] = 126
    got = decode(pixels.tobytes(), encoding=encoding, step=2 * W)
    assert np.ptp(got) == 0
    assert abs(int(got[0, 0, 0]) - 128) <= 1


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


def test_every_encoding_of_the_contract_can_be_decoded():
    from fastvla_core.robot.contract import RAW_ENCODINGS

    assert set(RAW_ENCODINGS) <= set(IMAGE_ENCODINGS)


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


NAMES = list(CONTRACT.state_names)
POSITIONS = [0.1 * (i + 1) for i in range(len(NAMES))]


@given(st.permutations(range(len(NAMES))))
def test_joints_are_matched_by_name(order: list[int]):
    got = decode_joint_state(
        CONTRACT, names=[NAMES[i] for i in order], positions=[POSITIONS[i] for i in order]
    )
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.asarray(POSITIONS, np.float32))


def test_other_joints_are_passed_over_and_names_are_mapped():
    joint_states = dataclasses.replace(CONTRACT.joint_states, names=(("finger", "gripper"),))
    contract = dataclasses.replace(CONTRACT, joint_states=joint_states)
    names = ["head", *NAMES[:-1], "finger"]
    got = decode_joint_state(contract, names=names, positions=[9.0, *POSITIONS])
    np.testing.assert_array_equal(got, np.asarray(POSITIONS, np.float32))


@pytest.mark.parametrize(
    ("names", "positions", "words"),
    [
        ([], [], ["names no joint"]),
        (NAMES, POSITIONS[:-1], ["7 names", "6 positions"]),
        (NAMES[:-1], POSITIONS[:-1], ["no position for gripper"]),
        ([*NAMES, "joint1"], [*POSITIONS, 0.0], ["'joint1' is there twice"]),
        (NAMES, [*POSITIONS[:-1], float("nan")], ["gripper is not finite"]),
        (NAMES, [float("inf"), *POSITIONS[1:]], ["joint1 is not finite"]),
    ],
)
def test_a_broken_joint_state_is_named(names: list, positions: list, words: list[str]):
    with pytest.raises(MessageError) as caught:
        decode_joint_state(CONTRACT, names=names, positions=positions)
    for word in ["joint_states", *words]:
        assert word in str(caught.value)


def test_the_stamp_is_the_contract_s_choice_and_never_zero():
    received = dataclasses.replace(
        CONTRACT, sync=dataclasses.replace(CONTRACT.sync, stamp="receive")
    )
    assert pick_stamp(CONTRACT, header_ns=5, receive_ns=9) == 5
    assert pick_stamp(received, header_ns=5, receive_ns=9) == 9
    assert pick_stamp(CONTRACT, header_ns=0, receive_ns=9) == 9
