"""Recipes: shipped ones load, mistakes are named; success rates carry a correct interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvla_core.errors import DatasetError
from training.recipe import load_recipe
from training.statistics import wilson_interval


@pytest.mark.parametrize("name", ["nano", "finetune"])
def test_shipped_recipes_load(name: str):
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\ncontrct: tabletop\n", "'contrct' is not a known key"),
        ("name: 3\n", "'name' is 3, expected str"),
        ("name: x\n", "misses the key 'contract'"),
        ("- a\n", "expected keys and values"),
        ("name: x\ntraining: {stepz: 3}\n", "'training.stepz' is not a known key"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=words):
        load_recipe(str(path))


def test_interval_against_published_values():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(200, 200)[1] == pytest.approx(1.0)
