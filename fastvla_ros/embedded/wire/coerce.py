"""What a field accepts and what it starts as: rclpy's rules, checked where the field is set.

A wrong type raises at the assignment and not in the thread that serialises. Scalars are as strict
as rclpy with field checks on (an int is not a float), because without them rclpy reads garbage.
Sequences are lenient: any buffer or iterable of the right items.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.cdr import CODES, PACKED
from fastvla_ros.embedded.wire.fields import FieldType, Kind

if TYPE_CHECKING:
    import numpy as np

Coerce = Callable[[Any], Any]
Default = Callable[[], Any]


def _refuse(expected: str, value: object) -> MessageError:
    shown = repr(value)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    return MessageError(f"expected {expected}, got {type(value).__name__} {shown}")


def _integer(name: str) -> Coerce:
    bits = 8 * struct.calcsize("<" + CODES[name])
    low, high = (0, 2**bits) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))

    def coerce(value: Any) -> int:
        if not isinstance(value, int):
            raise _refuse(f"an int for {name}", value)
        if not low <= value < high:
            raise MessageError(f"{value} is outside {name}")
        return value

    return coerce


def _exactly(kind: type, expected: str) -> Coerce:
    def coerce(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _refuse(expected, value)
        return value

    return coerce


def _octet(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray)) or len(value) != 1:
        raise _refuse("bytes of length 1", value)
    return bytes(value)


def _string(bound: int) -> Coerce:
    def coerce(value: Any) -> str:
        if not isinstance(value, str):
            raise _refuse("a str", value)
        if bound and len(value) > bound:
            raise MessageError(f"a string of {len(value)} characters where {bound} are allowed")
        return value

    return coerce


def _bounded(length: int, bound: int) -> None:
    if bound and length > bound:
        raise MessageError(f"{length} items where {bound} are allowed")


def _octets(bound: int) -> Coerce:
    """Keep any contiguous buffer without a copy: an image is 1 MB."""

    def coerce(value: Any) -> Any:
        if isinstance(value, array) and value.typecode == "B":
            result = value
        elif isinstance(value, (list, tuple)):
            result = array("B", value)
        else:
            try:
                result = memoryview(value)
            except TypeError:
                raise _refuse("a buffer or a sequence of uint8", value) from None
            if result.format not in ("B", "b", "c") or not result.c_contiguous:
                raise _refuse("a contiguous buffer of bytes", value)
            # A view of no bytes cannot be cast when it has several dimensions.
            result = result.cast("B") if result.nbytes else memoryview(b"")
        _bounded(len(result), bound)
        return result

    return coerce


def is_ndarray(value: object) -> bool:
    """Whether it is a NumPy array; where nobody imported NumPy there is none."""
    # While another thread is still importing NumPy, its module is there and lacks its names.
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    return ndarray is not None and isinstance(value, ndarray)


def _packed(name: str, bound: int) -> Coerce:
    code = CODES[name]

    def coerce(value: Any) -> array[Any]:
        if isinstance(value, array) and value.typecode == code:
            result = value
        elif isinstance(value, (memoryview, array)) or is_ndarray(value):
            result = array(code)
            result.frombytes(_lossless(value, name).tobytes())
        else:
            result = array(code, _iterable(value))
        _bounded(len(result), bound)
        return result

    return coerce


def _lossless(value: Any, name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    numbers = np.asarray(value)
    if numbers.ndim != 1 or not np.can_cast(numbers.dtype, name, "same_kind"):
        raise _refuse(f"a one-dimensional sequence of {name}", value)
    return numbers.astype(name, copy=False)


def _iterable(value: Any) -> Iterable[Any]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise _refuse("a sequence", value)
    return value


def _fixed_packed(name: str, size: int) -> Coerce:
    def coerce(value: Any) -> np.ndarray[Any, Any]:
        numbers = value if is_ndarray(value) else array(CODES[name], _iterable(value))
        result = _lossless(numbers, name)
        if len(result) != size:
            raise MessageError(f"{len(result)} items where exactly {size} are needed")
        return result

    return coerce


def _items(item: Coerce, bound: int, *, fixed: bool) -> Coerce:
    def coerce(value: Any) -> list[Any]:
        result = [item(element) for element in _iterable(value)]
        if fixed and len(result) != bound:
            raise MessageError(f"{len(result)} items where exactly {bound} are needed")
        _bounded(len(result), bound)
        return result

    return coerce


def field_coercion(desc: FieldType, message_class: Callable[[str], type]) -> Coerce:
    """The check of one field; `message_class` gives the classes of nested messages."""
    kind, detail = desc
    if kind == Kind.NAME:
        return _exactly(message_class(detail), detail)
    if kind == Kind.BASE:
        return _scalar(*detail)
    (item_kind, item), size = detail
    if item_kind == Kind.BASE and item[0] in PACKED:
        if kind == Kind.ARRAY:
            return _fixed_packed(item[0], size)
        return _octets(size) if item[0] == "uint8" else _packed(item[0], size)
    return _items(field_coercion(detail[0], message_class), size, fixed=kind == Kind.ARRAY)


def _scalar(name: str, bound: int) -> Coerce:
    if name == "string":
        return _string(bound)
    if name == "bool":
        return _exactly(bool, "a bool")
    if name == "byte":
        return _octet
    if name in ("float32", "float64"):
        return _exactly(float, "a float")
    return _integer(name)


def field_default(desc: FieldType, message_class: Callable[[str], type]) -> Default:
    """What a new message holds in one field."""
    kind, detail = desc
    if kind == Kind.NAME:
        return message_class(detail)
    if kind == Kind.BASE:
        zero = {"string": "", "bool": False, "byte": b"\x00", "float32": 0.0, "float64": 0.0}
        value = zero.get(detail[0], 0)
        return lambda: value
    (item_kind, item), size = detail
    packed = item_kind == Kind.BASE and item[0] in PACKED
    if kind == Kind.SEQUENCE:
        return (lambda: array(CODES[item[0]])) if packed else list
    if packed:
        return lambda: _zeros(size, item[0])
    make = field_default(detail[0], message_class)
    return lambda: [make() for _ in range(size)]


def _zeros(size: int, name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.zeros(size, name)
