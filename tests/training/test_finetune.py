"""Training: it learns, it resumes exactly, it refuses what does not fit and keeps what it has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.models.statistics import Statistics, identity_statistics
from fastvla_core.models.tokenizer import train_tokenizer
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.robot.contract_file import load_contract
from training.bench.training_speed import random_cache
from training.dataset import StepDataset, training_batch
from training.finetune import Trainer
from training.recipe import TrainConfig
from training.trainer_state import newest_state

CONTRACT = load_contract("tabletop")
CONFIG = TrainConfig(
    steps=6, batch_size=4, checkpoint_every=2, precision="fp32", warmup_steps=2, validation=0.0
)


def small_policy(**others: object) -> FastVLA:
    config = policy_config("nano", contract=CONTRACT, image_resolution=(32, 32), **others)
    statistics: Statistics = identity_statistics(state=7, steps=config.chunk_size, action=7)
    tokenizer = train_tokenizer(["pick up the red cube"], vocab_size=config.vocab_size)
    return FastVLA.from_config(config, statistics=statistics, tokenizer=tokenizer)


def dataset_for(policy: FastVLA) -> StepDataset:
    return StepDataset(
        random_cache(policy, frames=32),
        cameras=policy.config.cameras,
        chunk_size=policy.config.chunk_size,
        validation=0.0,
    )


def trainer(out: Path, config: TrainConfig = CONFIG) -> tuple[Trainer, FastVLA]:
    out.mkdir(parents=True, exist_ok=True)
    policy = small_policy()
    return Trainer(policy, dataset=dataset_for(policy), config=config, out=out), policy


class KilledError(Exception):
    """Stands for SIGKILL at a step."""


def test_a_killed_run_resumes_to_exactly_the_same_policy(tmp_path: Path, monkeypatch):
    whole, straight = trainer(tmp_path / "straight")
    whole.run()

    broken, _ = trainer(tmp_path / "resumed")
    step = Trainer._step

    def dying(self: Trainer, number: int, batch: object) -> float:
        if number == 5:
            raise KilledError
        return step(self, number, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(KilledError):
            broken.run()
    again, resumed = trainer(tmp_path / "resumed")
    again.run()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_training_lowers_the_loss_on_what_it_sees(tmp_path: Path):
    config = dataclasses.replace(CONFIG, steps=60, batch_size=8, checkpoint_every=1000)
    run, _ = trainer(tmp_path, config)
    points = []
    run.run(report=lambda point, _: points.append(point.loss))
    assert points[-1] < 0.9 * points[0]
    assert (tmp_path / "loss.csv").read_text().startswith("step,loss,validation_loss")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_the_saved_policy_acts_like_the_trained_one(tmp_path: Path):
    from fastvla_core.types import Observation

    run, policy = trainer(tmp_path)
    loaded = FastVLA.from_pretrained(run.run(), contract=CONTRACT)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = Observation(
        stamp_ns=1,
        task="pick up the red cube",
        images={"front": image, "wrist": image},
        state=np.zeros(7, np.float32),
    )
    assert np.array_equal(policy.infer(seen).positions, loaded.infer(seen).positions)


def test_other_settings_refuse_to_resume_and_keep_the_checkpoint(tmp_path: Path):
    trainer(tmp_path)[0].run()
    changed, _ = trainer(tmp_path, dataclasses.replace(CONFIG, batch_size=2))
    with pytest.raises(CheckpointError, match="batch_size = 4"):
        changed.run()
    newest = newest_state(tmp_path / "checkpoints")
    assert newest is not None
    assert FastVLA.from_pretrained(newest / "policy").config.robot_contract is not None


def test_a_damaged_training_state_is_named(tmp_path: Path):
    trainer(tmp_path)[0].run()
    newest = newest_state(tmp_path / "checkpoints")
    assert newest is not None
    (newest / "trainer.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=newest.name):
        trainer(tmp_path)[0].run()


def test_a_batch_follows_from_seed_and_step_alone():
    dataset = dataset_for(small_policy())
    one, same, other = (
        training_batch(dataset, seed=0, step=s, batch_size=8, camera_dropout=0.5) for s in (3, 3, 4)
    )
    assert torch.equal(one.state, same.state)
    assert torch.equal(one.image_mask, same.image_mask)
    assert not torch.equal(one.state, other.state)


def test_camera_dropout_hides_one_camera_and_never_all():
    dataset = dataset_for(small_policy())
    batch = training_batch(dataset, seed=0, step=0, batch_size=64, camera_dropout=1.0)
    assert (batch.image_mask.sum(1) == 1).all()
    batch = training_batch(dataset, seed=0, step=0, batch_size=64, camera_dropout=0.0)
    assert batch.image_mask.all()


def test_chunks_repeat_the_last_target_at_the_end_of_an_episode():
    policy = small_policy()
    dataset = dataset_for(policy)
    batch = dataset.batch(np.array([30]))
    label = random_cache(policy, frames=32).label
    assert np.array_equal(batch.actions[0, 0], label[30])
    assert all(np.array_equal(batch.actions[0, k], label[31]) for k in range(1, 8))


def test_a_camera_that_the_data_lacks_is_named():
    policy = small_policy()
    with pytest.raises(DatasetError, match="no camera 'top'"):
        StepDataset(random_cache(policy, frames=8), cameras=("top",), chunk_size=8)


def test_rewording_changes_the_sentence_and_never_the_task():
    from fastvla_core.sim.instructions import HELD_OUT_TEMPLATES, parse_instruction, reword

    dataset = dataset_for(small_policy())
    batch = training_batch(
        dataset, seed=0, step=0, batch_size=64, camera_dropout=0.0, reword=reword
    )
    parsed = [parse_instruction(text) for text in batch.tasks]
    assert {(task.kind, task.target) for task in parsed if task} == {("pick", "red")}
    assert len(set(batch.tasks)) > 5
    held_out = {t.format(target="red", reference=None) for t in HELD_OUT_TEMPLATES["pick"]}
    assert not held_out & set(batch.tasks)
    assert reword("open the drawer", np.random.default_rng(0)) == "open the drawer"


def test_other_recordings_refuse_to_resume(tmp_path: Path):
    trainer(tmp_path)[0].run()
    policy = small_policy()
    cache = random_cache(policy, frames=40)
    dataset = StepDataset(
        cache, cameras=policy.config.cameras, chunk_size=policy.config.chunk_size, validation=0.0
    )
    with pytest.raises(CheckpointError, match="began with other recordings"):
        Trainer(policy, dataset=dataset, config=CONFIG, out=tmp_path).run()


def test_another_vocabulary_or_other_statistics_refuse_to_resume(tmp_path: Path):
    trainer(tmp_path)[0].run()
    policy = small_policy()
    policy.processor.statistics.state.mean[0] += 0.1
    with pytest.raises(CheckpointError, match="began with other policy"):
        Trainer(policy, dataset=dataset_for(policy), config=CONFIG, out=tmp_path).run()


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "x", "config": {}, "curve": []}', "{"])
def test_a_training_state_of_another_form_is_named(tmp_path: Path, content: str):
    trainer(tmp_path)[0].run()
    newest = newest_state(tmp_path / "checkpoints")
    assert newest is not None
    (newest / "trainer.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        trainer(tmp_path)[0].run()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, policy = trainer(tmp_path)
    measure, calls = policy.model.loss, []

    def breaking(batch, *, generator):
        found = measure(batch, generator=generator)
        # Smaller ones only measure how much memory a step will need.
        calls.extend([1] * (len(batch["state"]) == CONFIG.batch_size))
        return {"loss": found["loss"] * float("nan")} if len(calls) == 4 else found

    monkeypatch.setattr(policy.model, "loss", breaking)
    with pytest.raises(DatasetError, match="loss is nan at step 4"):
        run.run()
    newest = newest_state(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "step_00000002"
    saved = FastVLA.from_pretrained(newest / "policy").model.state_dict()
    assert all(value.isfinite().all() for value in saved.values())


def test_dropout_leaves_the_only_camera_that_a_sample_has():
    policy = small_policy()
    cache = random_cache(policy, frames=32)
    cache.present[:, 1] = False
    dataset = StepDataset(cache, cameras=cache.cameras, chunk_size=8, validation=0.0)
    batch = training_batch(dataset, seed=0, step=0, batch_size=64, camera_dropout=1.0)
    assert (batch.image_mask.sum(1) == 1).all()


def test_camera_dropout_by_name_hides_each_camera_as_often_as_it_says():
    dataset = dataset_for(small_policy())
    chances = {dataset.cameras[1]: 0.5}
    batch = training_batch(dataset, seed=0, step=0, batch_size=400, camera_dropout=chances)
    assert batch.image_mask[:, 0].all()
    assert 150 < int((~batch.image_mask[:, 1]).sum()) < 250
    with pytest.raises(DatasetError, match="no camera of the policy"):
        training_batch(dataset, seed=0, step=0, batch_size=4, camera_dropout={"rear": 0.5})
    both = dict.fromkeys(dataset.cameras, 0.6)
    with pytest.raises(DatasetError, match="at most 1"):
        training_batch(dataset, seed=0, step=0, batch_size=4, camera_dropout=both)


def test_steps_before_the_present_one_belong_to_observation_and_chunk():
    policy = small_policy()
    cache = random_cache(policy, frames=32)
    dataset = StepDataset(cache, cameras=policy.config.cameras, chunk_size=4, past_steps=2)
    batch = dataset.batch(np.array([0, 1, 30]))
    steps = [[0, 0, 0], [0, 0, 1], [28, 29, 30]]
    for moment, rows in enumerate(zip(*steps, strict=True)):
        seen = {"state": batch.state, "images": batch.images}
        if moment < 2:
            seen = batch.earlier[moment]
        assert np.array_equal(seen["state"], cache.state[list(rows)])
        for camera, pixels in seen["images"].items():
            assert np.array_equal(pixels, cache.images[camera][list(rows)])
    assert batch.actions.shape[:2] == (3, 6)
    assert np.array_equal(batch.actions[1], cache.label[[0, 0, 1, 2, 3, 4]])
    assert np.array_equal(batch.actions[2], cache.label[[28, 29, 30, 31, 31, 31]])
    assert batch.action_is_pad.tolist() == [
        [True, True, False, False, False, False],
        [True, False, False, False, False, False],
        [False, False, False, False, True, True],
    ]
