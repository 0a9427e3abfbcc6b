"""Plain data fills dataclasses, and what does not fit is named by its dotted key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fastvla_core.plain_data import PlainDataError, convert, fill, updated


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    anything: Any = None


def test_nested_data_becomes_nested_dataclasses():
    data = {"name": "x", "inner": {"size": 3, "share": 1}, "pair": [4, 5], "names": ["p"]}
    filled = fill(Outer, {**data, "counts": {"reach": 2}, "anything": [None]})
    assert filled == Outer(
        name="x", inner=Inner(size=3, share=1.0), pair=(4, 5), names=("p",),
        counts={"reach": 2}, anything=[None],
    )  # fmt: skip
    assert type(filled.inner.share) is float


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"inner": {"size": 3.0}}, "inner.size", "expected int"),
        ({"inner": {"size": True}}, "inner.size", "expected int"),
        ({"inner": {"size": 3, "share": float("inf")}}, "inner.share", "finite"),
        ({"inner": {"size": 3, "share": 10**400}}, "inner.share", "expected float"),
        ({"inner": {}}, "inner", "misses the key 'size'"),
        ({"inner": [1]}, "inner", "expected keys and values"),
        ({"inner": {"size": 3, "siize": 3}}, "inner.siize", "not a known key; known here: share"),
        ({"kind": "c"}, "kind", "one of a, b"),
        ({"kind": ["a"]}, "kind", "one of a, b"),
        ({"pair": [1]}, "pair", "has 1 entries, expected 2"),
        ({"pair": 7}, "pair", "expected a list"),
        ({"names": "pq"}, "names", "expected a list"),
        ({"names": [None]}, "names", "expected str"),
        ({"counts": {"reach": "2"}}, "counts.reach", "expected int"),
        ({"counts": {3: 2}}, "counts", "expected str"),
        ({"name": None}, "name", "expected str"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], where: str, what: str):
    with pytest.raises(PlainDataError) as caught:
        fill(Outer, {"name": "x", "inner": {"size": 3}, **change})
    assert caught.value.where == where
    assert what in caught.value.what


def test_none_is_taken_only_where_the_hint_allows_it():
    assert convert(None, int | None, where="a") is None
    assert convert(4, int | None, where="a") == 4
    with pytest.raises(PlainDataError):
        convert("4", int | None, where="a")


def test_some_fields_are_replaced_and_all_others_kept():
    before = fill(Outer, {"name": "x", "inner": {"size": 3}})
    after = updated(before, {"inner": {"size": 4}}, where="options")
    assert after == fill(Outer, {"name": "x", "inner": {"size": 4}})
    with pytest.raises(PlainDataError, match=r"'options.nmae' is not a known key; .*name"):
        updated(before, {"nmae": "y"}, where="options")
    with pytest.raises(PlainDataError, match=r"'options.inner.size' is 'big'"):
        updated(before, {"inner": {"size": "big"}}, where="options")
