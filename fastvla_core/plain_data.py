"""Plain data from JSON and YAML, checked against the type hints of the dataclass it is to fill."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any


class PlainDataError(ValueError):
    """A value does not fit; `where` is its dotted key and `what` says what it should be."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"'{where}' {what}" if where else what)
        self.where = where
        self.what = what


def fill(kind: Any, data: Any, *, where: str = "") -> Any:
    """An instance of the dataclass `kind` from a mapping of its fields.

    Raises:
        PlainDataError: `data` is no mapping, a key is unknown or missing, or a value does not fit.
    """
    if not isinstance(data, Mapping):
        raise PlainDataError(where, f"is {data!r}, expected keys and values")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise PlainDataError(_join(where, key), f"is not a known key; known here: {known}")
    hints = typing.get_type_hints(kind)
    values = {k: convert(v, hints[k], where=_join(where, k)) for k, v in data.items()}
    for name, item in fields.items():
        if name not in values and _is_required(item):
            raise PlainDataError(where, f"misses the key '{name}'")
    return kind(**values)


def updated(instance: Any, data: Mapping[str, Any], *, where: str) -> Any:
    """The dataclass `instance` with some of its fields from plain data.

    Raises:
        PlainDataError: a key is unknown or a value does not fit.
    """
    hints = typing.get_type_hints(type(instance))
    known = {item.name for item in dataclasses.fields(instance)}
    for key in data:
        if key not in known:
            listed = ", ".join(sorted(known))
            raise PlainDataError(_join(where, key), f"is not a known key; known here: {listed}")
    values = {key: convert(data[key], hints[key], where=_join(where, key)) for key in data}
    return dataclasses.replace(instance, **values)


def convert(value: Any, hint: Any, *, where: str) -> Any:
    """`value` as the hinted type: whole numbers become floats, lists become tuples.

    Raises:
        PlainDataError: it is of another type, or a number is not finite.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (value is None and types.NoneType in options):
        return value
    if origin in (typing.Union, types.UnionType):
        return _any_of(value, [o for o in options if o is not types.NoneType], where)
    if origin is typing.Literal:
        if value not in options:
            listed = ", ".join(map(str, options))
            raise PlainDataError(where, f"is {value!r}, expected one of {listed}")
        return value
    if origin is tuple:
        return _row(value, options, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise PlainDataError(where, f"is {value!r}, expected keys and values")
        return {
            convert(k, options[0], where=where): convert(v, options[1], where=_join(where, k))
            for k, v in value.items()
        }
    return (
        fill(hint, value, where=where)
        if dataclasses.is_dataclass(hint)
        else _scalar(value, hint, where)
    )


def _any_of(value: Any, options: list[Any], where: str) -> Any:
    for option in options[:-1]:
        try:
            return convert(value, option, where=where)
        except PlainDataError:
            continue
    return convert(value, options[-1], where=where)


def _row(value: Any, options: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise PlainDataError(where, f"is {value!r}, expected a list")
    if options[-1] is Ellipsis:
        options = options[:1] * len(value)
    if len(value) != len(options):
        raise PlainDataError(where, f"has {len(value)} entries, expected {len(options)}")
    return tuple(convert(v, o, where=where) for v, o in zip(value, options))


def _scalar(value: Any, hint: type, where: str) -> Any:
    if hint is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if type(value) is not hint:
        raise PlainDataError(where, f"is {value!r}, expected {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise PlainDataError(where, f"is {value}, expected a finite number")
    return value


def _is_required(item: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return item.default is missing and item.default_factory is missing


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
