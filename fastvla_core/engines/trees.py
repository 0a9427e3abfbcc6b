"""Tensors inside nested tuples and frozen dataclasses: out in a fixed order, and back in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors, in a fixed order; what is no tensor, tuple or dataclass is passed over."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_of(item)
    elif _is_record(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure with other tensors, which come in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(with_tensors(item, tensors) for item in value)
    if _is_record(value):
        fields = {
            f.name: with_tensors(getattr(value, f.name), tensors) for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
