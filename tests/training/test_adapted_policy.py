"""A published checkpoint is trained for a robot that it has never seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from tests.core.models.lerobot.checkpoints import change_json, copied
from training import pipeline
from training.pipeline import run_recipe
from training.recipe import Recipe, TrainConfig

from .test_pipeline import record

CONTRACT = load_contract("tabletop")
TRAINING = TrainConfig(
    steps=1, batch_size=2, warmup_steps=1, checkpoint_every=1, validation=0.0, precision="fp32"
)


def recipe_for(policy: Path) -> Recipe:
    return Recipe(
        name="adapted",
        contract="tabletop",
        policy=str(policy),
        new=False,
        rate_hz=10.0,
        training=TRAINING,
    )


@pytest.mark.parametrize("name", ["pi05", "smolvla", "pi0_fast"])
def test_cameras_columns_and_statistics_become_those_of_the_robot(name: str, tmp_path: Path):
    record(tmp_path / "bag", instruction="pick up the red cube")
    run = recipe_for(copied(name, tmp_path))
    result = run_recipe(run, bags=[tmp_path / "bag"], out=tmp_path / "out", workers=1)
    policy = FastVLA.from_pretrained(result.policy, contract=CONTRACT)
    assert policy.config.cameras == ("front", "wrist")
    assert policy.config.action_names == CONTRACT.action_names
    assert policy.config.action_dt_s == pytest.approx(0.1)
    # Recorded: targets from 0.01 to 0.04 in every column.
    middle = policy.processor.absolute_actions(torch.zeros(1, 1, 7), torch.zeros(1, 7))
    assert torch.all((middle > 0.009) & (middle < 0.041))
    # A joint that hardly moved is not blown up.
    one = policy.processor.absolute_actions(torch.ones(1, 1, 7), torch.zeros(1, 7))
    assert torch.all((one - middle)[..., :-1] > 0.019)


def test_a_robot_with_too_many_columns_is_refused_before_bags_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "build_cache", lambda *_, **__: pytest.fail("bags were read"))
    folder = copied("pi0", tmp_path)
    change_json(folder / "config.json", max_action_dim=4)
    with pytest.raises(CheckpointError, match="action is above 'max_action_dim'"):
        run_recipe(recipe_for(folder), bags=[tmp_path / "bag"], out=tmp_path / "out")


def test_fp16_on_a_cpu_is_refused_before_bags_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "build_cache", lambda *_, **__: pytest.fail("bags were read"))
    run = recipe_for(copied("pi0", tmp_path))
    half = dataclasses.replace(run, training=dataclasses.replace(TRAINING, precision="fp16"))
    with pytest.raises(DatasetError, match="precision is fp16"):
        run_recipe(half, bags=[tmp_path / "bag"], out=tmp_path / "out", device=torch.device("cpu"))
