"""Composed policies are trained by a recipe: new from a backbone, and on from a checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.models.lora import LoraConfig
from fastvla_core.policy import FastVLA
from tests.core.models.vla.tiny import head, write_backbone
from training.pipeline import run_recipe
from training.recipe import Recipe, load_recipe

from .test_pipeline import record

RECIPE = """\
name: composed
contract: tabletop
policy: vla
new: true
rate_hz: 10.0
policy_options:
  backbone: {backbone}
  image_resolution: [28, 28]
  chunk_size: 4
  frozen: [vision]
  fusion: {{type: cross_attention, depth: 1, heads: 4}}
  head: {{type: regression, depth: 1, width: 32, mlp_width: 32, heads: 4, layers: [-1]}}
training: {{steps: 2, batch_size: 2, warmup_steps: 1, checkpoint_every: 1, validation: 0.0}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "composed.yaml"
    path.write_text(RECIPE.format(backbone=write_backbone(tmp_path, "smolvlm")))
    return load_recipe(str(path))


def recorded(folder: Path, *names: str) -> list[Path]:
    for name in names:
        record(folder / name, instruction="pick up the red cube")
    return [folder / name for name in names]


def test_a_recipe_trains_head_fusion_and_backbone_and_goes_on_from_there(
    recipe: Recipe, tmp_path: Path
):
    bags = recorded(tmp_path, "one", "two")
    result = run_recipe(recipe, bags=bags, out=tmp_path / "out", workers=1)
    trained = FastVLA.from_pretrained(result.policy)
    fresh = FastVLA.from_pretrained(tmp_path / "out" / "checkpoints" / "step_00000001" / "policy")
    before = dict(fresh.model.named_parameters())
    changed = {n for n, p in trained.model.named_parameters() if not torch.equal(p, before[n])}
    for part in ("head.", "fusion.", "backbone.network.model.text_model.layers.0"):
        assert any(name.startswith(part) for name in changed), part
    assert not any("vision_model" in name for name in changed)

    lora = LoraConfig(rank=2, modules=("backbone.network.model.text_model.*",))
    further = dataclasses.replace(
        recipe,
        policy=str(result.policy),
        new=False,
        policy_options={},
        training=dataclasses.replace(recipe.training, lora=lora),
    )
    again = run_recipe(further, bags=bags, out=tmp_path / "further", workers=1)
    after = dict(FastVLA.from_pretrained(again.policy).model.named_parameters())
    changed = {n for n, p in trained.model.named_parameters() if not torch.equal(p, after[n])}
    assert changed
    assert all(name.startswith("backbone.network.model.text_model.layers") for name in changed)


def test_a_run_that_was_stopped_ends_in_the_same_policy(recipe: Recipe, tmp_path: Path):
    bags = recorded(tmp_path, "one")
    whole = run_recipe(recipe, bags=bags, out=tmp_path / "whole", workers=1)
    broken = run_recipe(recipe, bags=bags, out=tmp_path / "broken", workers=1)
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step_00000002")
    shutil.rmtree(broken.policy)
    again = run_recipe(recipe, bags=bags, out=tmp_path / "broken", workers=1)
    first, second = (FastVLA.from_pretrained(run.policy).model for run in (whole, again))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"heads": 3}, DatasetError, r"'policy_options.heads' is not a known key"),
        ({"chunk_size": "many"}, DatasetError, r"'policy_options.chunk_size' is 'many'"),
        ({"head": {"type": "psychic"}}, CheckpointError, "no action head 'psychic'"),
        ({"head": head("bins", layers=[9, 9]), "fusion": {"type": "tokens"}}, CheckpointError,
         "reads layer 9, the backbone has 2"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_before_bags_are_read(
    recipe: Recipe, tmp_path: Path, options, error, message: str
):
    wrong = dataclasses.replace(recipe, policy_options={**recipe.policy_options, **options})
    with pytest.raises(error, match=message):
        run_recipe(wrong, bags=[tmp_path / "nowhere"], out=tmp_path / "out", workers=1)


def test_a_policy_that_exists_takes_no_options(recipe: Recipe):
    with pytest.raises(DatasetError, match="has policy_options for nano"):
        dataclasses.replace(recipe, policy="nano", new=False)
