"""ACT and Diffusion Policy as people have them: files, cameras, histories, quantised, trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvla_core import cli
from fastvla_core.contract_binding import RobotBinding
from fastvla_core.errors import CheckpointError, ContractError, ObservationError
from fastvla_core.policy import FastVLA
from fastvla_core.quant import quantized_layers
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.types import Observation

from .checkpoints import (
    VISUOMOTOR_POLICIES,
    change_json,
    change_weights,
    copied,
    positions,
)

EACH = pytest.mark.parametrize("policy", VISUOMOTOR_POLICIES)


def moments(loaded: FastVLA, count: int) -> list[Observation]:
    return [loaded.processor.random_observation(seed) for seed in range(count)]


def chunk(loaded: FastVLA, newest: Observation, *earlier: Observation) -> np.ndarray:
    seen = dataclasses.replace(newest, stamp_ns=1, earlier=earlier)
    return loaded.infer(seen).positions


# -- files -----------------------------------------------------------------------------------------


@EACH
def test_saving_gives_back_every_file_and_weight_exactly(tmp_path: Path, policy: str):
    source = copied(policy, tmp_path)
    loaded = FastVLA.from_pretrained(source)
    loaded.save_pretrained(tmp_path / "saved")
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
        texts = [json.loads((f / name).read_text()) for f in (source, tmp_path / "saved")]
        assert texts[0] == texts[1]
    again = FastVLA.from_pretrained(tmp_path / "saved")
    assert np.array_equal(positions(again), positions(loaded))


@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_statistics_among_the_weights_of_old_checkpoints_are_found(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    expected = positions(FastVLA.from_pretrained(folder))
    step = json.loads((folder / "policy_preprocessor.json").read_text())["steps"][-1]
    statistics = load_file(folder / step["state_file"])

    def add(weights: dict[str, torch.Tensor]) -> None:
        for name, tensor in statistics.items():
            feature, _, kind = name.rpartition(".")
            side = "normalize_targets" if feature == "action" else "normalize_inputs"
            weights[f"{side}.buffer_{feature.replace('.', '_')}.{kind}"] = tensor

    change_weights(folder, add)
    for path in folder.glob("policy_*"):
        path.unlink()
    loaded = FastVLA.from_pretrained(folder)
    assert np.allclose(positions(loaded), expected, atol=1e-6)
    loaded.save_pretrained(tmp_path / "saved")
    steps = json.loads((tmp_path / "saved/policy_postprocessor.json").read_text())["steps"]
    assert [s["registry_name"] for s in steps] == ["unnormalizer_processor", "device_processor"]
    assert np.allclose(positions(FastVLA.from_pretrained(tmp_path / "saved")), expected, atol=1e-6)


def test_statistics_of_a_camera_that_are_missing_are_an_error(tmp_path: Path):
    folder = copied("act", tmp_path)
    step = json.loads((folder / "policy_preprocessor.json").read_text())["steps"][-1]
    path = folder / step["state_file"]
    left = {k: v for k, v in load_file(path).items() if k != "observation.images.wrist.std"}
    save_file(left, path)
    with pytest.raises(CheckpointError, match=r"'observation.images.wrist.std' is missing"):
        FastVLA.from_pretrained(folder)


@pytest.mark.parametrize(
    ("policy", "changes", "said"),
    [
        (
            "act",
            {"vision_backbone": "resnet19"},
            "'vision_backbone' is 'resnet19'; known: resnet18",
        ),
        (
            "act",
            {"replace_final_stride_with_dilation": True},
            "is set for a backbone of basic blocks",
        ),
        ("act", {"n_obs_steps": 2}, "'n_obs_steps' is not 1"),
        ("act", {"feedforward_activation": "glu"}, "'feedforward_activation'"),
        ("act", {"n_heads": 5}, "no multiple of 'n_heads'"),
        ("diffusion", {"horizon": 18}, "'horizon' is no multiple of 4"),
        ("diffusion", {"n_action_steps": 16}, "above horizon - n_obs_steps"),
        ("diffusion", {"crop_shape": [200, 40]}, "'crop_shape' is larger"),
        ("diffusion", {"beta_schedule": "sigmoid"}, "'beta_schedule'"),
        ("diffusion", {"num_inference_steps": 21}, "'num_inference_steps' is not between"),
        ("diffusion", {"n_groups": 3}, "no multiples of 'n_groups'"),
    ],
)
def test_what_no_network_is_is_refused_by_its_key(
    tmp_path: Path, policy: str, changes: dict[str, Any], said: str
):
    folder = copied(policy, tmp_path)
    if "resnet" in said:
        (folder / "architecture.json").unlink()
        changes = {"vision_backbone": "resnet18", **changes}
    change_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=said):
        FastVLA.from_pretrained(folder)


@pytest.mark.parametrize("feature", ["observation.environment_state", "observation.state"])
def test_what_no_robot_gives_is_refused(tmp_path: Path, feature: str):
    folder = copied("act", tmp_path)
    features = json.loads((folder / "config.json").read_text())["input_features"]
    if feature in features:
        del features[feature]
    else:
        features[feature] = {"type": "ENV", "shape": [3]}
    change_json(folder / "config.json", input_features=features)
    with pytest.raises(CheckpointError, match=feature):
        FastVLA.from_pretrained(folder)


def test_weights_that_do_not_fit_are_named_as_they_are_stored(tmp_path: Path):
    folder = copied("diffusion", tmp_path)
    name = "diffusion.unet.mid_modules.0.cond_encoder.1.weight"
    change_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(CheckpointError, match=name):
        FastVLA.from_pretrained(folder)


@EACH
def test_show_explains_a_checkpoint(
    tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["models", "show", str(copied(policy, tmp_path)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cameras"] == ["front", "wrist"]
    assert found["may be missing"] == []
    assert found["tokenizer"] == "none: instructions are not read"
    assert any(line.startswith("images ") for line in found["statistics"])
    if policy == "act":
        assert found["image size"] == "48 x 64, 40 x 40"
    else:
        assert found["denoising steps"] == (10 if policy == "diffusion" else 5)
        assert found["observations per inference"] == (2 if policy == "diffusion" else 3)


# -- cameras ---------------------------------------------------------------------------------------


@EACH
def test_a_camera_is_needed_unless_the_robot_says_otherwise(tmp_path: Path, policy: str):
    folder, contract = copied(policy, tmp_path), load_contract("tabletop")
    loaded = FastVLA.from_pretrained(folder)
    partial = loaded.processor.random_observation(0).without_cameras(["wrist"])
    with pytest.raises(ObservationError, match="no image of camera 'wrist'"):
        loaded.infer(partial)
    cameras = tuple(
        dataclasses.replace(c, required=c.required and c.name != "wrist") for c in contract.cameras
    )
    binding = RobotBinding(action_dt_s=0.1)
    bound = FastVLA.from_pretrained(
        folder, contract=dataclasses.replace(contract, cameras=cameras), binding=binding
    )
    both = bound.processor.random_observation(0)
    without = bound.infer(both.without_cameras(["wrist"])).positions
    assert np.abs(without - bound.infer(both).positions).max() > 1e-4
    with pytest.raises(ObservationError, match="no image of camera 'front'"):
        bound.infer(both.without_cameras(["front"]))


def test_a_camera_without_a_partner_is_refused(tmp_path: Path):
    binding = RobotBinding(cameras={"wrist": None})
    with pytest.raises(ContractError, match="no camera takes the place of the policy's 'wrist'"):
        FastVLA.from_pretrained(copied("act", tmp_path), binding=binding)


def test_a_missing_camera_is_its_mean_colour(tmp_path: Path):
    folder = copied("act", tmp_path)
    step = json.loads((folder / "policy_preprocessor.json").read_text())["steps"][-1]
    path = folder / step["state_file"]
    statistics = load_file(path)
    mean = torch.tensor([64.0, 128.0, 192.0])
    statistics["observation.images.wrist.mean"] = (mean / 255).view(3, 1, 1)
    save_file(statistics, path)
    contract = load_contract("tabletop")
    cameras = tuple(
        dataclasses.replace(c, required=c.required and c.name != "wrist") for c in contract.cameras
    )
    loaded = FastVLA.from_pretrained(
        folder, contract=dataclasses.replace(contract, cameras=cameras), binding=RobotBinding()
    )
    seen = loaded.processor.random_observation(0)
    flat = np.broadcast_to(mean.numpy().astype(np.uint8), (40, 40, 3))
    coloured = dataclasses.replace(seen, images={**seen.images, "wrist": flat})
    one, other = loaded.infer(seen.without_cameras(["wrist"])), loaded.infer(coloured)
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-4)
    batch = loaded.infer_batch([seen, seen.without_cameras(["wrist"])])
    np.testing.assert_allclose(batch[1].positions, one.positions, atol=1e-5)


@EACH
def test_images_of_another_size_are_brought_to_the_policy_s(tmp_path: Path, policy: str):
    loaded = FastVLA.from_pretrained(copied(policy, tmp_path))
    seen = loaded.processor.random_observation(0)
    flat = {n: np.full_like(image, 90) for n, image in seen.images.items()}
    large = {n: np.full((200, 123, 3), 90, np.uint8) for n in seen.images}
    expected = chunk(loaded, dataclasses.replace(seen, images=flat))
    found = chunk(loaded, dataclasses.replace(seen, images=large))
    np.testing.assert_allclose(found, expected, atol=1e-4)


# -- histories -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "past"), [("diffusion", 1), ("diffusion_ddim", 2)])
def test_earlier_observations_are_read_and_the_oldest_stands_for_what_is_missing(
    tmp_path: Path, policy: str, past: int
):
    loaded = FastVLA.from_pretrained(
        copied(policy, tmp_path), binding=RobotBinding(action_dt_s=0.1)
    )
    assert loaded.history_s == pytest.approx([0.1 * k for k in range(past, 0, -1)])
    first, second, third, newest = moments(loaded, 4)
    whole = chunk(loaded, newest, *(first, second, third)[-past:])
    assert np.array_equal(whole, chunk(loaded, newest, first, second, third))
    assert np.abs(whole - chunk(loaded, newest)).max() > 1e-5
    assert np.array_equal(chunk(loaded, newest), chunk(loaded, newest, *[newest] * past))
    if past == 2:
        assert np.array_equal(chunk(loaded, newest, third), chunk(loaded, newest, third, third))
        assert np.abs(whole - chunk(loaded, newest, third, second)).max() > 1e-5


def test_rows_of_a_batch_may_have_histories_of_different_lengths(tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied("diffusion_ddim", tmp_path))
    first, second, newest = moments(loaded, 3)
    rows = [
        dataclasses.replace(newest, stamp_ns=1, earlier=earlier)
        for earlier in ((first, second), (second,), ())
    ]
    together = loaded.infer_batch(rows)
    for row, found in zip(rows, together, strict=True):
        np.testing.assert_allclose(found.positions, loaded.infer(row).positions, atol=1e-5)


def test_a_policy_of_one_moment_wants_no_history(tmp_path: Path):
    assert FastVLA.from_pretrained(copied("act", tmp_path)).history_s == ()


# -- quantised, other types, and trained -----------------------------------------------------------


@pytest.mark.parametrize("mode", ["nf4", "int8"])
@EACH
def test_policies_quantise_save_and_load(tmp_path: Path, policy: str, mode: Any):
    folder = copied(policy, tmp_path)
    full = positions(FastVLA.from_pretrained(folder))
    small = FastVLA.from_pretrained(folder, quantization=mode)
    packed = set(quantized_layers(small.model))
    assert (
        "encoder.layers.0.self_attn.q_proj" if policy == "act" else "unet.middle.block1.film"
    ) in packed
    assert not {n for n in packed if n.startswith(("latent", "encoders", "state_in", "action_out"))}
    assert 0 < np.abs(positions(small) - full).max() < (1.0 if mode == "nf4" else 0.1)
    small.save_pretrained(tmp_path / "small")
    again = FastVLA.from_pretrained(tmp_path / "small")
    assert again.quantization == mode
    assert np.array_equal(positions(again), positions(small))


@EACH
def test_training_reads_what_serving_reads_and_learns(policy: str, tmp_path: Path):
    loaded = FastVLA.from_pretrained(copied(policy, tmp_path))
    past = len(loaded.history_s)
    seen = [
        dataclasses.replace(rows[-1], earlier=tuple(rows[:-1]))
        for rows in (moments(loaded, past + 1), moments(loaded, past + 2)[1:])
    ]

    def moment(back: int) -> dict[str, Any]:
        rows = [(*o.earlier, o)[-1 - back] for o in seen]
        return {
            "images": {
                c: torch.from_numpy(np.stack([row.images[c] for row in rows]))
                for c in loaded.config.cameras
            },
            "image_mask": torch.ones(2, 2, dtype=torch.bool),
            "state": torch.from_numpy(np.stack([row.state for row in rows])),
        }

    rows = loaded.config.chunk_size + past
    batch = loaded.training_batch(
        **moment(0),
        actions=torch.randn(2, rows, 7),
        tasks=[o.task for o in seen],
        action_is_pad=torch.zeros(2, rows, dtype=torch.bool),
        earlier=tuple(moment(back) for back in range(past, 0, -1)),
    )
    served = loaded.processor.observation_batch(seen, device=torch.device("cpu"))
    assert served.keys() | {"action", "action_is_pad"} == batch.keys()
    assert all(torch.equal(batch[name], served[name]) for name in served)
    loaded.model.train()
    loss = loaded.model.loss(batch, generator=torch.Generator().manual_seed(0))["loss"]
    loss.backward()
    assert all(p.grad is not None for p in loaded.model.parameters())
