"""Arguments of the command line: what cannot be is wrong usage."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from fastvla_core.arguments import positive_float, positive_int, seconds, share


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "3", 3),
        (positive_float, "1e-3", 1e-3),
        (share, "0", 0.0),
        (share, "1", 1.0),
        (seconds, "0", 0.0),
    ],
)
def test_what_fits_is_taken(kind: Callable[[str], float], text: str, value: float):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((positive_int, text) for text in ("0", "-1", "1.5", "many", "")),
        *((positive_float, text) for text in ("0", "-0.1", "nan", "inf", "x")),
        *((seconds, text) for text in ("-0.1", "nan", "inf")),
        *((share, text) for text in ("-0.1", "1.1", "nan")),
    ],
)
def test_what_does_not_is_wrong_usage(kind: Callable[[str], float], text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
        kind(text)
