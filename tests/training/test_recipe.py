"""Recipes: shipped ones load, mistakes are named; success rates carry a correct interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvla_core.errors import DatasetError
from fastvla_core.resources import share_path
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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("precision: bf16", "precision: fp8", "'training.precision' is 'fp8', expected one of"),
        (
            "precision: bf16",
            "parallel: ddq",
            "'training.parallel' is 'ddq', expected one of",
        ),
        (
            "precision: bf16",
            "parallel: fsdp\n  optimizer: adamw_8bit",
            r"adamw_8bit, which cannot keep its states in parts \(`parallel: fsdp`\)",
        ),
        (
            "precision: bf16",
            "parallel: deepspeed\n  deepspeed: {zero_optimization: {stage: 3}}",
            r"training.deepspeed.zero_optimization.stage is 3",
        ),
        (
            "precision: bf16",
            "parallel: deepspeed\n  deepspeed: {zero_optimization: {stage: 1}, fp16: {}}",
            "training.deepspeed.fp16: the recipe decides this",
        ),
        ("precision: bf16", "parallel: deepspeed\n  precision: fp16", "does not go with"),
        ("seed: 0", "seed: -1", "training.seed is -1"),
        ("steps: 1000", "steps: 0", "training.steps is 0"),
        ("checkpoint_every: 200", "checkpoint_every: 0", "training.checkpoint_every is 0"),
        ("camera_dropout: 0.1", "camera_dropout: 3.0", "at most 1"),
        ("learning_rate: 3.0e-4", "learning_rate: .nan", "finite"),
        ("rate_hz: 10.0", "rate_hz: -3", "rate_hz is -3"),
        ("training:", "demonstrations: {episodes: 3}\ntraining:", "'demonstrations.episodes' is 3"),
    ],
)
def test_numbers_that_cannot_be_are_named(tmp_path: Path, old: str, new: str, words: str):
    text = share_path("config/recipes/finetune.yaml").read_text()
    assert old in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=words) as caught:
        load_recipe(str(path))
    assert str(path) in str(caught.value)


def test_a_recipe_that_is_not_shipped_and_one_that_is_no_text(tmp_path: Path):
    with pytest.raises(DatasetError, match="no shipped recipe 'nobody'"):
        load_recipe("nobody")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_recipe(str(tmp_path / "binary.yaml"))
