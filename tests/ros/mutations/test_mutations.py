"""Each promise of the policy server has a test that fails when the promise is broken.

`pytest tests/ros/mutations -m mutation` breaks them one after the other; `docs/reliability.md`
lists them.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.ros.mutations.mutation import ROOT, Mutation, load_table, make_copy, passes

BEHAVIOURS = 19
TABLE = load_table()
every_mutation = pytest.mark.parametrize(
    "mutation", TABLE, ids=[f"{row.number:02d}-{row.behaviour.replace(' ', '-')}" for row in TABLE]
)


@functools.cache
def passes_as_it_is(test: str) -> bool:
    return passes(test, root=ROOT)


@pytest.mark.mutation
@pytest.mark.timeout(900)
@every_mutation
def test_the_test_fails_without_the_behaviour(mutation: Mutation, tmp_path: Path):
    assert passes_as_it_is(mutation.test), f"{mutation.test} fails as it is"
    make_copy(mutation, tmp_path)
    assert not passes(mutation.test, root=tmp_path), f"{mutation.test} does not see the difference"


def test_every_behaviour_is_in_the_table():
    assert {row.number for row in TABLE} == set(range(1, BEHAVIOURS + 1))


@every_mutation
def test_the_text_and_the_test_are_still_there(mutation: Mutation):
    assert mutation.mutated_text()
    path, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@every_mutation
def test_the_document_lists_it(mutation: Mutation):
    document = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    test = mutation.test.rpartition("::")[2]
    rows = [line for line in document.splitlines() if line.startswith(f"| {mutation.number} |")]
    assert any(mutation.behaviour in row and test in row for row in rows)
