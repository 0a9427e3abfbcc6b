"""Meta-World through the recorder, the cache and the evaluation."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import ContractError, DatasetError, SimError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.demonstrations import record_demonstration
from fastvla_core.sim.metaworld.environment import MetaWorldEnvironment
from training.bags.episodes import episode_steps
from training.bags.reader import open_bag
from training.evaluate import EvaluationConfig, evaluate
from training.recipe import load_recipe
from training.record_expert import demonstration_task, write_demonstration

needs_metaworld = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="metaworld is not installed"
)
FIRST = 10_000_000
BUTTON = "metaworld/button-press-v3"


def config(**others: object) -> EvaluationConfig:
    settings = {"policy": "nano", "task": BUTTON, "seeds": (FIRST, FIRST + 1), **others}
    return EvaluationConfig(**settings)  # type: ignore[arg-type]


def test_an_unknown_task_ends_the_command_with_those_spelt_alike(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval", "--env", "metaworld/button-pres-v3"])
    assert ended.value.code == 2
    assert "did you mean button-press-v3" in capsys.readouterr().err


def test_what_meta_world_cannot_do_is_refused():
    with pytest.raises(SimError, match="cannot be run against the clock"):
        evaluate(config(latency_s=0.1))
    with pytest.raises(SimError, match="one sentence: 'press the button'"):
        evaluate(config(paraphrase=True))
    with pytest.raises(ContractError):
        evaluate(config())


def test_the_recipe_takes_other_tasks():
    recipe = load_recipe("metaworld")
    most = max(recipe.demonstrations.episodes.values())
    chosen = recipe.for_tasks([BUTTON, "metaworld/reach-v3"])
    assert chosen.demonstrations.episodes == {BUTTON: most, "metaworld/reach-v3": most}
    with pytest.raises(DatasetError, match="records no demonstrations"):
        load_recipe("finetune").for_tasks([BUTTON])


@needs_metaworld
def test_a_demonstration_comes_back_bit_by_bit(tmp_path: Path):
    contract = load_contract("metaworld")
    with contextlib.closing(MetaWorldEnvironment()) as environment:
        shown = record_demonstration(environment, demonstration_task(BUTTON, 5), 5)
    write_demonstration(tmp_path / "demo", shown, contract=contract)
    with open_bag(tmp_path / "demo") as bag:
        assert not bag.problems
        steps = episode_steps(bag, contract=contract, rate_hz=20.0)
    assert np.array_equal(steps.state, shown.state)
    assert np.array_equal(steps.label, shown.label)
    for camera, images in shown.images.items():
        assert np.array_equal(steps.images[camera], images)
    assert steps.instruction == "press the button"
    assert steps.outcome == "success"


@needs_metaworld
def test_one_command_records_trains_and_evaluates(tmp_path: Path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "name: small\ncontract: metaworld\npolicy: nano\nnew: true\nrate_hz: 20.0\n"
        "demonstrations: {seed: 1000000, episodes: {metaworld/drawer-open-v3: 2}}\n"
        "training: {steps: 1, batch_size: 2, checkpoint_every: 1, validation: 0.0}\n"
        f"evaluation: {{seeds: [{FIRST}, {FIRST + 1}]}}\n"
    )
    options = ["--recipe", str(recipe), "--env", BUTTON, "--workers", "1", "--threads", "1"]
    assert main(["train", *options, "--out", str(tmp_path / "out")]) == 0
    assert f"{BUTTON}    " in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["results"]
    assert (row["task"], row["episodes"]) == (BUTTON, 1)
    assert len(list((tmp_path / "out" / "bags").rglob("metadata.yaml"))) == 2
