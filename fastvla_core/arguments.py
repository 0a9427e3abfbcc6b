"""Types of command-line arguments: what cannot be is wrong usage, said before anything starts."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return int(_number(text, int, "a whole number above 0", lambda x: x >= 1))


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return int(_number(text, int, "a whole number of at least 0", lambda x: x >= 0))


def positive_float(text: str) -> float:
    """A finite number above 0."""
    return _number(text, float, "a number above 0", lambda x: x > 0)


def seconds(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, float, "a number of at least 0", lambda x: x >= 0)


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, float, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def _number(
    text: str, kind: Callable[[str], float], expected: str, fits: Callable[[float], bool]
) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and fits(value)):
        raise argparse.ArgumentTypeError(f"'{text}' is not {expected}")
    return value
