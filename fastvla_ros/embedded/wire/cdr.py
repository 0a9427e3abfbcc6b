"""CDR (XCDR1, little endian): reads and writes message fields.

A writer appends to a bytearray that starts with the 4-byte encapsulation header; a reader takes
the body after that header. Alignment counts from the start of the body.
Source: OMG DDSI-RTPS 2.5, 10.2; OMG CORBA 3.0, 15.3.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Any

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.fields import FieldType, Kind

Writer = Callable[[bytearray, Any], None]
Reader = Callable[[memoryview, int], "tuple[Any, int]"]
Codec = tuple[Writer, Reader]

HEADER = b"\x00\x01\x00\x00"
ZEROS = [bytes(n) for n in range(8)]

# ROS name: struct code. `byte` is an octet that Python sees as bytes of length one.
CODES = {
    "bool": "?",
    "byte": "c",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
# These have an array.array (or NumPy) form; `bool` and `byte` sequences are lists, as in rclpy.
PACKED = set(CODES) - {"bool", "byte"}


def body(data: bytes | memoryview) -> memoryview:
    """What follows the encapsulation header, read-only.

    Raises:
        MessageError: another encoding.
    """
    if len(data) < 4 or data[0] != 0 or data[1] != 1:
        raise MessageError("not plain little-endian CDR")
    return memoryview(data)[4:].toreadonly()


def pad_to(buffer: bytearray, size: int) -> None:
    """Pad so that the next value starts at a multiple of `size` in the body."""
    buffer += ZEROS[(4 - len(buffer)) % size]


def scalar_codec(name: str) -> Codec:
    """Numbers, booleans and octets."""
    packer = struct.Struct("<" + CODES[name])
    size, pack, unpack = packer.size, packer.pack, packer.unpack_from

    def write(buffer: bytearray, value: Any) -> None:
        buffer += ZEROS[(4 - len(buffer)) % size]
        buffer += pack(value)

    def read(data: memoryview, pos: int) -> tuple[Any, int]:
        pos += -pos % size
        return unpack(data, pos)[0], pos + size

    return write, read


write_length, read_length = scalar_codec("uint32")


def write_string(buffer: bytearray, value: str) -> None:
    """A length that counts the final zero, the bytes, the zero."""
    encoded = value.encode("utf-8")
    write_length(buffer, len(encoded) + 1)
    buffer += encoded
    buffer += b"\x00"


def read_string(data: memoryview, pos: int) -> tuple[str, int]:
    """Some vendors send an empty string as length 0, so that is read too."""
    length, pos = read_length(data, pos)
    end = pos + length
    if end > len(data):
        raise MessageError(f"a string of {length} bytes ends beyond the message")
    return str(data[pos : max(end - 1, pos)], "utf-8"), end


def _span(data: memoryview, pos: int, count: int, size: int) -> tuple[memoryview, int]:
    """The bytes of `count` packed items; an empty sequence has no padding."""
    if count:
        pos += -pos % size
    end = pos + count * size
    if end > len(data):
        raise MessageError(f"a sequence of {count} items ends beyond the message")
    return data[pos:end], end


def octets_codec() -> Codec:
    """`uint8[]`: written from any buffer, read as a view of the received bytes."""

    def write(buffer: bytearray, value: Any) -> None:
        write_length(buffer, len(value))
        buffer += value

    def read(data: memoryview, pos: int) -> tuple[memoryview, int]:
        count, pos = read_length(data, pos)
        return _span(data, pos, count, 1)

    return write, read


def packed_sequence_codec(name: str) -> Codec:
    """Sequences of numbers, held in array.array as rclpy does."""
    code = CODES[name]
    size = struct.calcsize("<" + code)

    def write(buffer: bytearray, value: array[Any]) -> None:
        write_length(buffer, len(value))
        if value:
            pad_to(buffer, size)
            buffer += memoryview(value).cast("B")

    def read(data: memoryview, pos: int) -> tuple[array[Any], int]:
        count, pos = read_length(data, pos)
        span, pos = _span(data, pos, count, size)
        value = array(code)
        value.frombytes(span)
        return value, pos

    return write, read


def packed_array_codec(name: str, count: int) -> Codec:
    """Arrays of numbers of fixed size, held in NumPy arrays as rclpy does."""
    size = struct.calcsize("<" + CODES[name])

    def write(buffer: bytearray, value: Any) -> None:
        pad_to(buffer, size)
        buffer += value.tobytes()

    def read(data: memoryview, pos: int) -> tuple[Any, int]:
        # Late, as in all of this room: a program whose messages need no NumPy starts without it.
        import numpy as np

        span, pos = _span(data, pos, count, size)
        return np.frombuffer(span, name).copy(), pos

    return write, read


def items_codec(item: Codec, *, count: int | None) -> Codec:
    """Lists: of strings, messages, booleans; `count` is None for a sequence."""
    write_item, read_item = item

    def write(buffer: bytearray, value: Any) -> None:
        if count is None:
            write_length(buffer, len(value))
        for element in value:
            write_item(buffer, element)

    def read(data: memoryview, pos: int) -> tuple[list[Any], int]:
        total = count
        if total is None:
            total, pos = read_length(data, pos)
            if total > len(data):
                raise MessageError(f"a sequence of {total} items ends beyond the message")
        elements = []
        for _ in range(total):
            element, pos = read_item(data, pos)
            elements.append(element)
        return elements, pos

    return write, read


def field_codec(desc: FieldType, message_codec: Callable[[str], Codec]) -> Codec:
    """The codec of one field; `message_codec` gives those of nested messages."""
    kind, detail = desc
    if kind == Kind.BASE:
        return (write_string, read_string) if detail[0] == "string" else scalar_codec(detail[0])
    if kind == Kind.NAME:
        return message_codec(detail)
    (item_kind, item), size = detail
    if item_kind == Kind.BASE and item[0] in PACKED:
        if kind == Kind.ARRAY:
            return packed_array_codec(item[0], size)
        return octets_codec() if item[0] == "uint8" else packed_sequence_codec(item[0])
    count = size if kind == Kind.ARRAY else None
    return items_codec(field_codec(detail[0], message_codec), count=count)
