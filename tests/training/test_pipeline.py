"""A whole run: what does not fit is refused before bags are read; the rest trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fastvla_core.errors import CheckpointError, ContractError, DatasetError
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.instructions import TRAINING_TEMPLATES
from fastvla_core.sim.tasks import TASKS
from training import pipeline
from training.bags.writer import EpisodeWriter
from training.cache import open_cache
from training.dataset import StepDataset
from training.learning_options import KeyPoseTraining
from training.pipeline import run_recipe
from training.recipe import (
    Corrections,
    Demonstrations,
    FinalEvaluation,
    KeyPosesFirst,
    Recipe,
    load_recipe,
)

CONTRACT = load_contract("tabletop")


def small_run(name: str = "finetune", **others: object) -> Recipe:
    recipe = load_recipe(name)
    training = dataclasses.replace(
        recipe.training, steps=2, batch_size=2, warmup_steps=1, checkpoint_every=2
    )
    alone = {"training": training, "key_poses_first": None, "corrections": None}
    return dataclasses.replace(recipe, **{**alone, **others})


@pytest.fixture
def bags(tmp_path: Path) -> Path:
    """Two short episodes of the table-top robot, in grey."""
    for number in range(2):
        record(tmp_path / "bags" / f"e{number}", instruction="pick up the red cube")
    return tmp_path / "bags"


def record(folder: Path, *, instruction: str, contract: RobotContract = CONTRACT) -> None:
    writer = EpisodeWriter(folder, contract=contract, instruction=instruction)
    for k in range(4):
        stamp_ns = (k + 50) * 100_000_000
        for camera in contract.policy_cameras:
            pixels = np.full((camera.height, camera.width, 3), 40 * k, np.uint8)
            writer.image(camera.name, stamp_ns=stamp_ns, image=pixels)
        position = np.full(7, 0.01 * k)
        writer.joint_state(contract.state_names, stamp_ns=stamp_ns, positions=position)
        writer.command(
            contract.action_names, stamp_ns=stamp_ns, positions=position + 0.01, duration_s=0.1
        )
    writer.close("success")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build_cache", lambda *_, **__: pytest.fail("bags were read"))


@pytest.mark.usefixtures("unread")
def test_recordings_cut_at_another_rate_than_the_policys_are_refused(bags, tmp_path):
    with pytest.raises(DatasetError, match="at 20 Hz, nano acts at 10 Hz") as caught:
        run_recipe(small_run(rate_hz=20.0), bags=[bags], out=tmp_path / "out")
    assert "rate_hz: 10" in caught.value.mend


@pytest.mark.usefixtures("unread")
def test_a_quantised_policy_is_not_trained(bags, tmp_path):
    packed = tmp_path / "packed"
    FastVLA.from_pretrained("nano", quantization="nf4").save_pretrained(packed)
    with pytest.raises(CheckpointError, match=r"is quantised \(nf4\)"):
        run_recipe(small_run(policy=str(packed)), bags=[bags], out=tmp_path / "out")


@pytest.mark.usefixtures("unread")
def test_a_policy_that_is_missing_or_of_another_robot_shows_at_once(bags, tmp_path):
    with pytest.raises(CheckpointError, match="no shipped policy 'nobody'"):
        run_recipe(small_run(policy="nobody"), bags=[bags], out=tmp_path / "out")
    with pytest.raises(CheckpointError, match="no policy preset 'nobody'"):
        run_recipe(small_run("nano", policy="nobody"), bags=[bags], out=tmp_path / "out")
    other = tmp_path / "other.yaml"
    path = Path(pipeline.__file__).parents[1] / "config" / "robots" / "tabletop.yaml"
    other.write_text(path.read_text().replace("joint1:", "shoulder:"))
    with pytest.raises(ContractError, match="shoulder"):
        run_recipe(small_run(contract=str(other)), bags=[bags], out=tmp_path / "out")


def test_a_recipe_may_train_for_prefixes_and_the_checkpoint_says_so(bags, tmp_path):
    training = dataclasses.replace(small_run().training, max_prefix_steps=3)
    result = run_recipe(small_run(training=training), bags=[bags], out=tmp_path / "out")
    assert FastVLA.from_pretrained(result.policy).conditionings == ("inpaint", "trained")
    too_many = dataclasses.replace(training, max_prefix_steps=8)
    with pytest.raises(CheckpointError, match="max_prefix_steps"):
        run_recipe(small_run(training=too_many), bags=[bags], out=tmp_path / "other")


def test_an_instruction_that_the_policy_cannot_read_names_its_recording(bags, tmp_path):
    record(bags / "long", instruction="pick " * 40)
    with pytest.raises(DatasetError, match=r"long: the instruction .* tokens"):
        run_recipe(small_run(), bags=[bags], out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_recordings_that_are_not_used_are_said(bags, tmp_path, capsys):
    (file,) = (bags / "e1").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:100])
    result = run_recipe(small_run(), bags=[bags], out=tmp_path / "out", workers=1)
    assert f"{bags / 'e1'}: " in capsys.readouterr().err
    FastVLA.from_pretrained(result.policy, contract=CONTRACT)


def test_sentences_drawn_anew_are_in_the_vocabulary_of_a_new_policy(bags, tmp_path):
    recipe = small_run("nano")
    assert recipe.training.reword
    result = run_recipe(recipe, bags=[bags], out=tmp_path / "out", workers=1)
    processor = FastVLA.from_pretrained(result.policy).processor
    for kind in TASKS:
        for template in TRAINING_TEMPLATES[kind]:
            text = template.format(target="red", reference="red")
            assert int(processor.encode([text])["token_mask"].sum()) == len(text.split())


def test_a_recipe_may_end_with_an_evaluation(bags, tmp_path):
    run = small_run(
        demonstrations=Demonstrations(episodes={"reach": 1}),
        evaluation=FinalEvaluation(seeds=(10_000_000, 10_000_001)),
    )
    result = run_recipe(run, bags=[bags], out=tmp_path / "out", workers=1)
    (found,) = result.evaluation
    assert (found.task, found.episodes) == ("reach", 1)
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["results"][0]["successes"] == found.successes
    assert result.wall_s > found.wall_s
    with pytest.raises(DatasetError, match="name no scene"):
        FinalEvaluation(seeds=(5, 5))


def test_a_recipe_with_corrections_leaves_its_last_policy_and_goes_on_where_it_stopped(tmp_path):
    run = small_run(
        "nano",
        demonstrations=Demonstrations(seed=3, episodes={"reach": 1}),
        corrections=Corrections(
            seed=50, episodes={"reach": 1}, steps=3, camera_dropout=0.5, share=0.5
        ),
    )
    out = tmp_path / "out"
    result = run_recipe(run, bags=[], out=out, workers=1)
    assert result.policy == out / "policy"
    assert result.steps == 3
    recorded = {p.parent.name for p in out.rglob("*.mcap")}
    assert recorded == {"reach_00000"}
    assert len(list(out.rglob("*.mcap"))) == 2
    # All recordings are learnt from, not the corrections alone.
    assert (
        open_cache(out / "cache").manifest.frames
        > open_cache(out / "first" / "cache").manifest.frames
    )
    made = {p: p.stat().st_mtime_ns for p in out.rglob("*.mcap")}
    again = run_recipe(run, bags=[], out=out, workers=1)
    weights = [(p / "model.safetensors").read_bytes() for p in (result.policy, again.policy)]
    assert weights[0] == weights[1]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.mcap")} == made


def test_mixing_draws_the_second_round_back_towards_the_first(tmp_path):
    def weights_of(policy: Path) -> dict[str, Tensor]:
        return load_file(policy / "model.safetensors")

    whole = Corrections(seed=50, episodes={"reach": 1}, steps=3, learning_rate=0.01)
    run = small_run(
        "nano",
        demonstrations=Demonstrations(seed=3, episodes={"reach": 1}),
        corrections=dataclasses.replace(whole, mixing=0.25),
    )
    out = tmp_path / "out"
    # Done twice, it is mixed once.
    for _ in range(2):
        mixed = weights_of(run_recipe(run, bags=[], out=out, workers=1).policy)
    plain = dataclasses.replace(run, corrections=whole)
    second = weights_of(run_recipe(plain, bags=[], out=out, workers=1).policy)
    first = weights_of(out / "first" / "policy")
    assert any(not torch.equal(first[name], second[name]) for name in second)
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name])


@pytest.mark.parametrize("mixing", [0.0, 1.5])
def test_mixing_is_a_part(mixing: float):
    with pytest.raises(DatasetError, match=f"corrections.mixing is {mixing:g}"):
        Corrections(seed=1, episodes={}, steps=1, mixing=mixing)


def test_a_recipe_with_key_poses_first_starts_from_what_they_taught(tmp_path, monkeypatch):
    drawn_from: list[np.ndarray] = []
    restricted = StepDataset.restricted

    def noted(self: StepDataset, wanted: np.ndarray) -> StepDataset:
        drawn_from.append(wanted)
        return restricted(self, wanted)

    monkeypatch.setattr(StepDataset, "restricted", noted)
    plain = small_run("nano")
    run = small_run(
        "nano",
        training=dataclasses.replace(plain.training, key_pose=KeyPoseTraining(count=2)),
        demonstrations=Demonstrations(seed=3, episodes={"pick": 1}),
        key_poses_first=KeyPosesFirst(steps=3, camera_dropout={"wrist": 0.9}),
    )
    out = tmp_path / "out"
    result = run_recipe(run, bags=[], out=out, workers=1)
    seen = FastVLA.from_pretrained(str(out / "key_poses" / "policy"))
    assert (out / "key_poses" / "loss.csv").exists()
    # The key poses alone are learnt before the gripper's first use, the actions everywhere.
    (before_use,) = drawn_from
    assert 0 < before_use.sum() < len(before_use) == result.frames
    acting = FastVLA.from_pretrained(str(result.policy))
    seen_state, state = seen.model.state_dict(), acting.model.state_dict()
    # Two small steps: still near what it started from, in the policy and beside it.
    for name, value in seen_state.items():
        assert (state[name] - value).abs().max() < 0.01, name
    head, before = result.key_pose_head, _heads(out / "key_poses")
    assert head is not None
    assert before.keys() == head.keys()
    for name, value in head.items():
        assert (value - before[name]).abs().max() < 0.01, name
    again = run_recipe(run, bags=[], out=out, workers=1)
    assert again.key_pose_head is not None
    for name, value in again.key_pose_head.items():
        assert torch.equal(value, head[name]), name


def _heads(out: Path) -> dict[str, torch.Tensor]:
    """Averages of the key poses' head in the last checkpoint of a run."""
    state = load_file(out / "checkpoints" / "step_00000003" / "trainer.safetensors")
    before = "ema.head."
    return {name.removeprefix(before): state[name] for name in state if name.startswith(before)}


def test_key_poses_first_want_key_poses_afterwards_and_whole_weights():
    plain = load_recipe("nano")
    with pytest.raises(DatasetError, match=r"no `training.key_pose`"):
        dataclasses.replace(
            plain,
            training=dataclasses.replace(plain.training, key_pose=None),
            key_poses_first=KeyPosesFirst(steps=3),
        )
    in_parts = dataclasses.replace(plain.training, key_pose=KeyPoseTraining(), parallel="fsdp")
    with pytest.raises(DatasetError, match="parallel: fsdp"):
        dataclasses.replace(plain, training=in_parts, key_poses_first=KeyPosesFirst(steps=3))


def test_a_run_that_would_learn_its_recordings_by_heart_says_so():
    config = dataclasses.replace(load_recipe("finetune").training, steps=1000, batch_size=64)
    said = pipeline.too_few_recordings(config, frames=16)
    assert "16 recorded steps" in said
    assert "4,000 times" in said
    assert not pipeline.too_few_recordings(config, frames=640)
