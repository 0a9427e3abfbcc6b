"""Where the hand goes next: the right pose for every step, learnt beside the flow, not saved."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastvla_core.errors import DatasetError
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from tests.training.test_insulation import batch_of
from training.bench.training_speed import random_cache
from training.dataset import StepDataset
from training.finetune import Trainer
from training.key_frames import KeyPoses, key_frames
from training.key_pose import WithKeyPose
from training.learning_options import KeyPoseTraining

JOINTS = 6
CONFIGURED = dataclasses.replace(CONFIG, key_pose=KeyPoseTraining())


def with_key_poses(dataset: StepDataset, cache: object) -> StepDataset:
    frames = dataset.training_frames
    dataset.key_poses = KeyPoses(cache, frames=frames, joints=JOINTS, has_gripper=True)  # type: ignore[arg-type]
    return dataset


def trainer(out: Path, **changes: object) -> Trainer:
    out.mkdir(parents=True, exist_ok=True)
    policy = small_policy()
    cache = random_cache(policy, frames=32)
    dataset = with_key_poses(dataset_for(policy), cache)
    config = dataclasses.replace(CONFIGURED, **changes)  # type: ignore[arg-type]
    return Trainer(policy, dataset=dataset, config=config, out=out)


def test_the_key_frame_is_the_next_use_of_the_gripper_or_the_last_of_the_episode():
    last = np.repeat([4, 9], 5)
    found = key_frames(np.array([3, 7]), last=last)
    assert found.tolist() == [3, 3, 3, 4, 4, 7, 7, 9, 9, 9]
    assert key_frames(np.zeros(0, np.int64), last=last).tolist() == last.tolist()


def test_a_target_is_the_way_from_the_state_to_the_key_pose_in_standard_deviations():
    policy = small_policy()
    cache = random_cache(policy, frames=8)
    cache.label[:, JOINTS] = np.where(np.arange(8) < 5, 0.04, 0.0)
    # Below the floor of the scale.
    cache.label[:, 0] = cache.state[:, 0] = 0.001
    poses = KeyPoses(cache, frames=np.arange(8), joints=JOINTS, has_gripper=True)
    way = cache.label[[5] * 5 + [7] * 3, :JOINTS] - cache.state[:, :JOINTS]
    found = poses[np.array([6, 0])]
    assert torch.all(found[:, 0] == 0)
    expected = (way[:, 1:] / way[:, 1:].std(axis=0))[[6, 0]].astype(np.float32)
    torch.testing.assert_close(found[:, 1:], torch.from_numpy(expected))
    # Nothing is used: the way to the episode's end.
    still = KeyPoses(cache, frames=np.arange(8), joints=JOINTS, has_gripper=False)
    assert not torch.equal(still[np.array([0])], poses[np.array([0])])
    torch.testing.assert_close(still[np.array([7])][:, 0], torch.zeros(1))


def test_the_second_key_pose_is_the_one_after_the_first_as_seen_from_now():
    policy = small_policy()
    cache = random_cache(policy, frames=8)
    # Closed at frame 3, opened at frame 6.
    cache.label[:, JOINTS] = np.where((np.arange(8) < 3) | (np.arange(8) >= 6), 0.04, 0.0)
    options = {"frames": np.arange(8), "joints": JOINTS, "has_gripper": True}
    one, two = KeyPoses(cache, **options), KeyPoses(cache, **options, count=2)
    assert (one.width, two.width) == (JOINTS, 2 * JOINTS)
    found = two[np.arange(8)]
    assert torch.equal(found[:, :JOINTS], one[np.arange(8)])
    way = cache.label[[6] * 3 + [7] * 5, :JOINTS] - cache.state[:, :JOINTS]
    scale = np.maximum(way.std(axis=0), 0.05)
    torch.testing.assert_close(found[:, JOINTS:], torch.from_numpy((way / scale).astype("f")))


def test_no_key_pose_teaches_nothing():
    with pytest.raises(DatasetError, match="count is 0"):
        KeyPoseTraining(count=0)


def test_the_pose_teaches_the_prefix_and_no_action_head():
    policy = small_policy()
    learner = WithKeyPose(policy.model, KeyPoseTraining(weight=0.5), width=JOINTS, seed=0)
    batch = {**batch_of(policy), "key_pose": torch.randn(4, JOINTS)}
    found = learner.loss(batch, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["loss"], found["flow_loss"] + 0.5 * found["key_pose_loss"])
    plain = policy.model.loss(batch, generator=torch.Generator().manual_seed(0))["loss"]
    torch.testing.assert_close(found["flow_loss"], plain)
    found["key_pose_loss"].backward()
    taught = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert any(name.startswith("prefix.text") for name in taught)
    assert not any(name.startswith("expert") for name in taught)


@pytest.mark.parametrize("points", [0, 4])
def test_alone_it_teaches_what_reads_words_and_pictures_and_leaves_the_rest_as_it_was(
    tmp_path: Path, points: int
):
    policy = small_policy(image_points=points)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    cache = random_cache(policy, frames=32)
    dataset = with_key_poses(dataset_for(policy), cache)
    config = dataclasses.replace(
        CONFIG, steps=20, batch_size=8, ema_decay=0.0, key_pose=KeyPoseTraining(alone=True)
    )
    folder = Trainer(policy, dataset=dataset, config=config, out=tmp_path).run()
    losses = np.genfromtxt(tmp_path / "loss.csv", delimiter=",", names=True)["loss"]
    assert np.isfinite(losses).all()
    stored = load_file(folder / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(value, stored[name])}
    seeing = ["prefix.text.", "prefix.vision.", "prefix.pool."]
    # The policy's own pointer learns; how the state token takes it in, the flow has to say.
    seeing += ["prefix.pointer."] if points else []
    assert changed
    assert all(name.startswith(tuple(seeing)) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in seeing)


def test_alone_only_steps_before_the_first_use_of_the_gripper_are_drawn():
    policy = small_policy()
    cache = random_cache(policy, frames=8)
    cache.label[:, JOINTS] = np.where((np.arange(8) < 3) | (np.arange(8) >= 6), 0.04, 0.0)
    dataset = dataset_for(policy)
    poses = KeyPoses(cache, frames=np.arange(8), joints=JOINTS, has_gripper=True)
    assert poses.before_use.tolist() == [True] * 3 + [False] * 5
    wanted = np.arange(32) < 3
    less = dataset.restricted(wanted)
    assert less.training_frames.tolist() == [0, 1, 2]
    assert len(dataset) == 32
    assert torch.equal(less.batch(np.array([1])).state, dataset.batch(np.array([1])).state)


def test_a_hidden_camera_says_nothing_about_the_key_pose():
    policy = small_policy()
    learner = WithKeyPose(policy.model, KeyPoseTraining(alone=True), width=JOINTS, seed=0).eval()
    batch = {**batch_of(policy), "key_pose": torch.randn(4, JOINTS)}
    mask = batch["image_mask"].clone()
    mask[:, 0] = False
    hidden = {**batch, "image_mask": mask}
    other = {**hidden, "images": hidden["images"].clone()}
    other["images"][:, 0] = torch.rand_like(other["images"][:, 0])

    def told(of: dict[str, torch.Tensor]) -> torch.Tensor:
        prefix = policy.model.prefix
        return learner.head(prefix.embed(of)[0], of, prefix)

    assert torch.equal(told(hidden), told(other))
    assert not torch.equal(told(hidden), told(batch))


def test_a_policy_that_points_shares_its_pointer_with_the_head():
    policy = small_policy(image_points=4)
    learner = WithKeyPose(policy.model, KeyPoseTraining(), width=JOINTS, seed=0)
    assert {name for name, _ in learner.head.named_parameters()} == {"out.weight", "out.bias"}
    batch = {**batch_of(policy), "key_pose": torch.randn(4, JOINTS)}
    found = learner.loss(batch, generator=torch.Generator().manual_seed(0))
    pointer = list(policy.model.prefix.pointer.parameters())
    for name in ("key_pose_loss", "flow_loss"):
        gradients = torch.autograd.grad(found[name], pointer, retain_graph=True)
        assert all(gradient.any() for gradient in gradients), name


def test_a_stem_that_words_do_not_steer_leaves_them_to_the_head():
    vision = {"type": "vit", "patch": 8, "token_width": 32, "depth": 1, "heads": 2, "mlp_width": 64}
    policy = small_policy(vision=vision, image_points=0)
    learner = WithKeyPose(policy.model, KeyPoseTraining(), width=JOINTS, seed=0)
    batch = {**batch_of(policy), "key_pose": torch.randn(4, JOINTS)}
    learner.loss(batch, generator=torch.Generator().manual_seed(0))["key_pose_loss"].backward()
    taught = {n for n, p in learner.named_parameters() if p.grad is not None}
    assert any(name.startswith("head.words.") for name in taught)
    assert any(name.startswith("network.prefix.text.") for name in taught)


def test_it_is_learnt_resumes_exactly_and_is_not_part_of_the_policy(tmp_path: Path):
    options = {"steps": 60, "batch_size": 8, "checkpoint_every": 30}
    folder = trainer(tmp_path / "whole", **options).run()
    losses = np.genfromtxt(tmp_path / "whole" / "loss.csv", delimiter=",", names=True)["loss"]
    assert losses[-1] < 0.8 * losses[0]
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == small_policy().model.state_dict().keys()

    # As it was left by a run that was killed behind its first checkpoint.
    shutil.copytree(tmp_path / "whole" / "checkpoints", tmp_path / "again" / "checkpoints")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step_00000060")
    resumed = load_file(trainer(tmp_path / "again", **options).run() / "model.safetensors")
    for name, value in stored.items():
        assert torch.equal(value, resumed[name]), name


def test_without_key_poses_or_on_another_network_it_is_refused(tmp_path: Path):
    policy = small_policy()
    with pytest.raises(DatasetError, match="no key poses"):
        Trainer(policy, dataset=dataset_for(policy), config=CONFIGURED, out=tmp_path)
    with pytest.raises(DatasetError, match="only small flow policies"):
        WithKeyPose(torch.nn.Linear(2, 2), KeyPoseTraining(), width=JOINTS, seed=0)
    with pytest.raises(DatasetError, match="weight is 0"):
        KeyPoseTraining(weight=0.0)
