"""Processors: LeRobot's files, older and other statistics, and what must not be skipped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.lerobot.normalization import affine
from fastvla_core.policy import FastVLA

from .checkpoints import (
    FLOW_POLICIES,
    POLICIES,
    change_json,
    change_step,
    change_weights,
    copied,
    positions,
)


def _step(folder: Path, file: str, name: str) -> dict:
    steps = json.loads((folder / f"{file}.json").read_text())["steps"]
    return next(step for step in steps if step["registry_name"] == name)


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_every_way_of_normalising_is_undone_by_its_inverse(mode: str):
    statistics = {
        name: torch.tensor([value, 2.0])
        for name, value in (
            ("mean", 0.5), ("std", 0.2), ("min", -1.0), ("max", 3.0),
            ("q01", -0.9), ("q99", 2.9), ("q10", -0.5), ("q90", 2.5),
        )
    }  # fmt: skip
    scale = affine(mode, statistics, feature="action", dim=2, eps=1e-8, source="x")
    assert scale is not None
    x = torch.randn(3, 4, 2)
    x[..., 1] = 2.0
    assert torch.allclose(scale.unnormalize(scale.normalize(x)), x, atol=1e-5)
    low = {"MIN_MAX": -1.0, "QUANTILES": -0.9, "QUANTILE10": -0.5}.get(mode)
    if low is not None:
        assert scale.normalize(torch.tensor([low, 2.0])).tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("policy", POLICIES)
def test_statistics_that_are_missing_or_of_another_feature_are_an_error(
    tmp_path: Path, policy: str
):
    folder = copied(policy, tmp_path)
    file = folder / _step(folder, "policy_postprocessor", "unnormalizer_processor")["state_file"]
    whole = load_file(file)
    for change, said in (
        (lambda t: {k.replace("action", "arm.action"): v for k, v in t.items()}, "is missing"),
        (lambda t: {**t, "action.std": t["action.std"][:3], "action.q99": t["action.q99"][:3]},
         r"has the shape \(3,\)"),
        (lambda t: {k: v * torch.nan for k, v in t.items()}, "is not finite"),
    ):  # fmt: skip
        save_file({k: v.contiguous() for k, v in change(whole).items()}, file)
        with pytest.raises(CheckpointError, match=said) as caught:
            FastVLA.from_pretrained(folder)
        assert str(file) in str(caught.value)
        assert "action." in str(caught.value)
    file.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        FastVLA.from_pretrained(folder)


def test_a_step_that_is_not_known_is_an_error_and_never_skipped(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    data = json.loads((folder / "policy_preprocessor.json").read_text())
    data["steps"].append({"registry_name": "magic_processor", "config": {}})
    (folder / "policy_preprocessor.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="'magic_processor' is not known"):
        FastVLA.from_pretrained(folder)


def test_images_with_statistics_are_refused(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    modes = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    change_json(folder / "config.json", normalization_mapping=modes)
    with pytest.raises(CheckpointError, match="images are normalised"):
        FastVLA.from_pretrained(folder)


@pytest.mark.parametrize("policy", ["smolvla", "pi0"])
def test_statistics_among_the_weights_of_old_checkpoints_are_found(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    expected = positions(FastVLA.from_pretrained(folder))
    file = folder / _step(folder, "policy_postprocessor", "unnormalizer_processor")["state_file"]
    statistics = load_file(file)
    for path in folder.glob("policy_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="statistics"):
        FastVLA.from_pretrained(folder)

    def add(weights):
        for group, key in (
            ("normalize_inputs", "observation.state"),
            ("unnormalize_outputs", "action"),
        ):
            buffer = f"{group}.buffer_{key.replace('.', '_')}"
            for name in ("mean", "std"):
                weights[f"{buffer}.{name}"] = statistics[f"{key}.{name}"]

    change_weights(folder, add)
    old = FastVLA.from_pretrained(folder)
    assert np.array_equal(positions(old), expected)
    old.save_pretrained(tmp_path / "new")
    assert not [n for n in load_file(tmp_path / "new/model.safetensors") if "buffer_" in n]
    assert np.array_equal(positions(FastVLA.from_pretrained(tmp_path / "new")), expected)


@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_openpi_folders_load_and_are_saved_as_lerobots(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    loaded = FastVLA.from_pretrained(folder)
    cameras = loaded.config.cameras
    observation = loaded.processor.random_observation(0)
    file = folder / _step(folder, "policy_postprocessor", "unnormalizer_processor")["state_file"]
    statistics = load_file(file)
    for path in [*folder.glob("policy_*"), folder / "config.json"]:
        path.unlink()
    raw = loaded.config.raw
    sizes = {
        "action_horizon": raw["chunk_size"],
        "image_size": raw["image_resolution"][0],
        "num_steps": raw["num_inference_steps"],
        "max_token_len": raw["tokenizer_max_length"],
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    stats = {
        own: {name: statistics[f"{key}.{name}"].tolist() for name in ("mean", "std", "q01", "q99")}
        for own, key in (("state", "observation.state"), ("actions", "action"))
    }
    (folder / "assets/robot").mkdir(parents=True)
    (folder / "assets/robot/norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    change_weights(folder, _without_model)
    openpi = FastVLA.from_pretrained(folder)
    assert openpi.config.policy_type == policy
    assert openpi.config.cameras == cameras
    theirs, ours = (p.infer(observation).positions for p in (openpi, loaded))
    assert np.abs(theirs - ours).max() < 1e-4
    # openpi adds 1e-6 where LeRobot adds 1e-8: the results are near, not equal.
    assert np.abs(theirs - ours).max() > 0
    openpi.save_pretrained(tmp_path / "saved")
    again = FastVLA.from_pretrained(tmp_path / "saved")
    assert np.array_equal(again.infer(observation).positions, theirs)


def _without_model(weights) -> None:
    for name in list(weights):
        weights[name.removeprefix("model.")] = weights.pop(name)


def test_relative_actions_become_absolute_again_except_for_named_joints(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    names = [f"joint{i}" for i in range(6)] + ["left_Gripper"]
    plain = FastVLA.from_pretrained(folder)
    change_json(folder / "config.json", use_relative_actions=True, action_feature_names=names)
    options = {"enabled": True, "exclude_joints": ["gripper"], "action_names": names}
    change_step(folder, "policy_preprocessor", "relative_actions_processor", **options)
    change_step(folder, "policy_postprocessor", "absolute_actions_processor", enabled=True)
    relative = FastVLA.from_pretrained(folder)
    assert relative.config.action_names == tuple(names)
    assert relative.config.relative_joints == tuple(names[:6])
    observation = plain.processor.random_observation(1)
    difference = relative.infer(observation).positions - plain.infer(observation).positions
    assert np.allclose(difference[:, :6], observation.state[:6], atol=1e-5)
    assert np.allclose(difference[:, 6], 0, atol=1e-6)
    targets, state = torch.randn(2, 10, 7), torch.randn(2, 7)
    back = relative.processor.relative(targets, state)
    subtracted = torch.cat([state[:, :6], torch.zeros(2, 1)], 1)[:, None]
    # A float32 difference is as exact as its larger operand: no relative bound near a zero state.
    assert torch.allclose(targets - back, subtracted, atol=1e-6)


@pytest.mark.parametrize("policy", FLOW_POLICIES)
def test_training_reads_what_serving_reads_and_learns(policy: str, tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied(policy, tmp_path))
    observations = [loaded.processor.random_observation(seed) for seed in range(2)]
    cameras = loaded.config.cameras
    actions = torch.randn(2, loaded.config.chunk_size, 7)
    batch = loaded.training_batch(
        images={
            c: torch.from_numpy(np.stack([o.images[c] for o in observations])) for c in cameras
        },
        image_mask=torch.ones(2, len(cameras), dtype=torch.bool),
        state=torch.from_numpy(np.stack([o.state for o in observations])),
        actions=actions,
        tasks=[o.task for o in observations],
    )
    served = loaded.processor.observation_batch(observations, device=torch.device("cpu"))
    assert all(torch.equal(batch[name], served[name]) for name in served)
    loss = loaded.model.loss(batch, generator=torch.Generator().manual_seed(0))["loss"]
    loss.backward()
    unread = {"final_norm", "self_attn.q_proj", "self_attn.o_proj", "mlp"}
    without = [n for n, p in loaded.model.named_parameters() if p.grad is None]
    # Of the prefix's last layer only keys and values are read.
    assert all(any(word in name for word in unread) for name in without)
    assert [n for n, p in loaded.model.named_parameters() if p.grad is not None and p.grad.any()]


def test_pi0_fast_trains_on_action_tokens(tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied("pi0_fast", tmp_path))
    observation = loaded.processor.random_observation(0)
    state = torch.from_numpy(observation.state)[None]
    normalised = torch.full((1, 10, 7), 0.3)
    batch = loaded.training_batch(
        images={name: torch.from_numpy(image)[None] for name, image in observation.images.items()},
        image_mask=torch.ones(1, 3, dtype=torch.bool),
        state=state,
        actions=loaded.processor.absolute_actions(normalised, state),
        tasks=[observation.task],
    )
    loss = loaded.model.loss(batch, generator=torch.Generator())["loss"]
    loss.backward()
    assert loss > 0
    # The tokens of a chunk decode to that chunk: a constant is one coefficient, rounded.
    actions = loaded.processor.actions(batch["action_tokens"][:, 1:])
    assert (actions - normalised).abs().max() < 0.5 / 10 / 10**0.5 + 1e-6


def test_missing_cameras_are_masked_and_none_at_all_is_an_error(tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied("pi0", tmp_path))
    observation = loaded.processor.random_observation(0)
    partial = observation.without_cameras(["left_wrist_0_rgb"])
    both = loaded.infer_batch([observation, partial])
    alone = loaded.infer(partial)
    assert np.allclose(both[1].positions, alone.positions, atol=1e-5)
    assert np.abs(both[0].positions - both[1].positions).max() > 1e-3
    with pytest.raises(ObservationError, match="no image of any camera"):
        loaded.infer(observation.without_cameras(loaded.config.cameras))
    with pytest.raises(ObservationError, match="got 3 values"):
        loaded.infer(dataclasses.replace(observation, state=observation.state[:3]))
    with pytest.raises(ObservationError, match="is empty"):
        loaded.infer(dataclasses.replace(observation, task="  "))


def test_parts_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = copied("smolvla", tmp_path)
    expected = positions(FastVLA.from_pretrained(folder))
    for part in ("tokenizer", "tiny-vlm"):
        (folder / part).rename(tmp_path / part)
    with pytest.raises(CheckpointError, match=r"'vlm_model_name' names 'tiny-vlm'"):
        FastVLA.from_pretrained(folder)
    files = LocalFiles(vlm=tmp_path / "tiny-vlm", tokenizer=tmp_path / "tokenizer")
    assert np.array_equal(positions(FastVLA.from_pretrained(folder, files=files)), expected)
    pi0 = copied("pi0", tmp_path)
    (pi0 / "tokenizer").rename(tmp_path / "words")
    with pytest.raises(CheckpointError, match="google/paligemma-3b-pt-224"):
        FastVLA.from_pretrained(pi0)
    (pi0 / "architecture.json").rename(tmp_path / "sizes.json")
    with pytest.raises(CheckpointError, match="weights do not fit"):
        FastVLA.from_pretrained(pi0, files=LocalFiles(tokenizer=tmp_path / "words"))
    files = LocalFiles(tokenizer=tmp_path / "words", architecture=tmp_path / "sizes.json")
    assert FastVLA.from_pretrained(pi0, files=files).config.chunk_size == 10
