from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import (
    CheckpointError,
    ContractError,
    ObservationError,
    PolicyError,
)
from fastvla_core.models.tokenizer import train_tokenizer
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.quant import memory_bytes, quantized_layers
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.types import Observation

from .models.tiny import TEXTS, observation, tiny_policy, tiny_statistics, vit_vision


def _positions(policy: FastVLA, index: int = 0) -> np.ndarray:
    return policy.infer(observation(index)).positions


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
@pytest.mark.parametrize("others", [{}, {"vision": vit_vision()}])
def test_saving_and_loading_gives_the_same_actions_bit_for_bit(tmp_path, quantization, others):
    tiny_policy(**others).save_pretrained(tmp_path / "full")
    policy = FastVLA.from_pretrained(tmp_path / "full", quantization=quantization)
    policy.save_pretrained(tmp_path / "saved")
    again = FastVLA.from_pretrained(tmp_path / "saved")
    for index in range(3):
        assert np.array_equal(_positions(again, index), _positions(policy, index))
    assert quantized_layers(again.model).keys() == quantized_layers(policy.model).keys()
    assert bool(quantized_layers(again.model)) == (quantization is not None)


def test_a_fresh_policy_survives_its_first_save(tmp_path: Path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path / "p")
    assert np.array_equal(_positions(FastVLA.from_pretrained(tmp_path / "p")), _positions(policy))


def test_saving_over_the_folder_it_was_loaded_from_works(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path / "p")
    policy = FastVLA.from_pretrained(tmp_path / "p")
    before = _positions(policy)
    policy.save_pretrained(tmp_path / "p")
    assert np.array_equal(_positions(FastVLA.from_pretrained(tmp_path / "p")), before)


def test_quantised_weights_are_packed_on_disk(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path / "full")
    full = (tmp_path / "full" / "model.safetensors").stat().st_size
    layer = {}
    for mode in ("nf4", "int8"):
        policy = FastVLA.from_pretrained(tmp_path / "full", quantization=mode)
        policy.save_pretrained(tmp_path / mode)
        assert (tmp_path / mode / "model.safetensors").stat().st_size < full
        again = FastVLA.from_pretrained(tmp_path / mode)
        layer[mode] = memory_bytes(again.model.get_submodule("expert.layers.0.mlp"))
    # As a whole so small a policy is no smaller in 4 bits: they leave more layers alone.
    assert layer["nf4"] < layer["int8"]


def test_embeddings_convolutions_norms_and_small_projections_stay_exact(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path)
    policy = FastVLA.from_pretrained(tmp_path, quantization="nf4")
    quantised = quantized_layers(policy.model)
    assert "expert.layers.0.mlp.up_proj" in quantised
    assert not [n for n in quantised if n.startswith(("prefix.vision", "prefix.pool"))]
    assert not {"prefix.state_in", "expert.action_in", "expert.action_out"} & quantised.keys()


def test_loading_a_quantised_checkpoint_with_another_mode_is_refused(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path / "full")
    policy = FastVLA.from_pretrained(tmp_path / "full", quantization="nf4")
    policy.save_pretrained(tmp_path / "nf4")
    assert FastVLA.from_pretrained(tmp_path / "nf4", quantization="nf4").quantization == "nf4"
    with pytest.raises(CheckpointError, match="is quantised to nf4, not int8"):
        FastVLA.from_pretrained(tmp_path / "nf4", quantization="int8")


def test_an_inference_is_reproducible_and_does_not_depend_on_the_ones_before():
    policy, other = tiny_policy(), tiny_policy()
    for index in range(3):
        _positions(other, index)
    assert np.array_equal(_positions(policy, 7), _positions(other, 7))


def test_the_seed_and_the_stamp_decide_the_noise():
    policy = tiny_policy()
    first = _positions(policy)
    policy.reset(seed=1)
    assert not np.allclose(_positions(policy), first)
    policy.reset(seed=0)
    assert np.array_equal(_positions(policy), first)
    later = dataclasses.replace(observation(), stamp_ns=99)
    assert not np.allclose(policy.infer(later).positions, first)


def test_batching_changes_no_chunk():
    policy = tiny_policy()
    observations = [observation(i, task=TEXTS[i % 2]) for i in range(3)]
    observations.append(observation(3, missing="wrist"))
    together = policy.infer_batch(observations)
    for seen, chunk in zip(observations, together, strict=True):
        np.testing.assert_allclose(policy.infer(seen).positions, chunk.positions, atol=1e-5)


def test_inference_leaves_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    _positions(tiny_policy())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_chunks_carry_names_times_and_a_count():
    policy = tiny_policy()
    chunks = policy.infer_batch([observation(0), observation(1)])
    assert [c.chunk_id for c in chunks] == [0, 1]
    assert [c.stamp_ns for c in chunks] == [1000, 1001]
    assert chunks[0].names == ("joint1", "joint2", "gripper")
    assert chunks[0].dt_s == 0.1
    assert chunks[0].positions.shape == (4, 3)
    assert chunks[0].positions.dtype == np.float64
    policy.reset()
    assert policy.infer(observation()).chunk_id == 0
    assert policy.infer_batch([]) == []


def test_a_network_that_gives_nan_is_stopped_before_the_robot():
    policy = tiny_policy()
    policy.model.expert.action_out.bias.data[1] = float("nan")
    with pytest.raises(PolicyError, match="at step 0 is nan"):
        policy.infer(observation())


def test_an_empty_instruction_is_refused():
    with pytest.raises(ObservationError, match="instruction is empty"):
        tiny_policy().infer(observation(task="  "))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_missing_or_cut_file_is_one_clear_error(tmp_path: Path, name: str):
    tiny_policy().save_pretrained(tmp_path / "p")
    shutil.copytree(tmp_path / "p", tmp_path / "q")
    (tmp_path / "q" / name).unlink()
    with pytest.raises(CheckpointError, match="is missing") as caught:
        FastVLA.from_pretrained(tmp_path / "q")
    assert Path(name).name in str(caught.value)
    path = tmp_path / "p" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        FastVLA.from_pretrained(tmp_path / "p")
    assert Path(name).name in str(caught.value)


def test_weights_of_another_size_are_refused(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "expert": {**data["expert"], "width": 64}}))
    with pytest.raises(CheckpointError, match=r"does not fit config\.json"):
        FastVLA.from_pretrained(tmp_path)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_opened(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path / "p")
    trap = pickle.dumps(_Trap(tmp_path / "sprung"))
    (tmp_path / "p" / "model.safetensors").write_bytes(trap)
    with pytest.raises(CheckpointError, match="damaged"):
        FastVLA.from_pretrained(tmp_path / "p")
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()


def test_an_unknown_policy_type_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"type": "mystery"}')
    with pytest.raises(CheckpointError, match="no policy type 'mystery'"):
        FastVLA.from_pretrained(tmp_path)


def _policy_for(contract, folder: Path) -> None:
    config = policy_config("nano", contract=contract)
    policy = FastVLA.from_config(
        config, statistics=tiny_statistics(config), tokenizer=train_tokenizer(TEXTS)
    )
    policy.save_pretrained(folder)


def test_the_contract_it_was_trained_with_is_served(tmp_path: Path):
    contract = load_contract("tabletop")
    _policy_for(contract, tmp_path)
    policy = FastVLA.from_pretrained(tmp_path, contract=contract)
    assert policy.config.cameras == tuple(c.name for c in contract.policy_cameras)
    assert policy.config.action_names == contract.action_names
    assert policy.config.relative_exclude_joints == ("gripper",)


def test_another_contract_is_refused_with_the_differences(tmp_path: Path):
    contract = load_contract("tabletop")
    _policy_for(contract, tmp_path)
    joint = dataclasses.replace(contract.joints[0], upper=contract.joints[0].upper + 0.25)
    other = dataclasses.replace(contract, joints=(joint, *contract.joints[1:]))
    with pytest.raises(ContractError, match=r"joints\.joint1\.upper: .* here, .* there"):
        FastVLA.from_pretrained(tmp_path, contract=other)


def test_cameras_of_another_size_are_scaled_and_padded_to_the_policy_s(tmp_path: Path):
    contract = load_contract("tabletop")
    _policy_for(contract, tmp_path)
    wide = [dataclasses.replace(c, width=640, height=480) for c in contract.policy_cameras]
    served = dataclasses.replace(contract, cameras=tuple(wide))
    policy = FastVLA.from_pretrained(tmp_path, contract=served)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    seen = Observation(
        stamp_ns=1, task=TEXTS[0], state=np.zeros(7, np.float32),
        images={camera.name: picture for camera in wide},
    )  # fmt: skip
    pixels = policy.processor.observation_batch([seen], device=policy.device)["images"]
    bars = (pixels == pixels[..., :1, :1]).all(dim=-1)[0, 0].all(dim=0)
    # 4:3 in a square: an eighth of the rows above and below are padding.
    assert bars.sum() == policy.config.image_resolution[0] // 4
    assert np.isfinite(policy.infer(seen).positions).all()


def test_a_policy_without_contract_is_not_served_on_a_robot(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path)
    with pytest.raises(ContractError, match="names no robot contract"):
        FastVLA.from_pretrained(tmp_path, contract=load_contract("tabletop"))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused():
    with pytest.raises(CheckpointError, match="vocabulary"):
        tiny_policy(vocab_size=200)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_the_compiled_policy_gives_the_same_actions():
    policy = tiny_policy()
    expected = _positions(policy)
    policy.compile()
    np.testing.assert_allclose(_positions(policy), expected, atol=1e-4)


def _edited(folder: Path, key: str, value: object) -> Path:
    tiny_policy().save_pretrained(folder)
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, key: value}))
    return folder


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("type", ["fastvla_flow"], "'type' is missing"),
        ("vision", {"type": "film_conv", "channels": [8, "x"], "condition_width": 16}, "config"),
        ("vision", {"type": "film_conv", "channels": [7], "condition_width": 16}, "no network"),
        (
            "vision",
            {"type": "film_conv", "channels": [8], "condition_width": 16, "first_stride": 3},
            "first_stride",
        ),
        ("vision", {"type": "film_conv", "channels": None, "condition_width": 16}, "config"),
        ("attention", {"heads": 4, "kv_heads": 2, "head_dim": 10**30}, "no network"),
    ],
)
def test_a_config_that_no_network_can_be_built_from_is_refused(
    tmp_path: Path, key: str, value: object, words: str
):
    with pytest.raises(CheckpointError, match=words):
        FastVLA.from_pretrained(_edited(tmp_path, key, value))


def test_an_image_that_runs_backwards_in_memory_is_taken():
    policy, seen = tiny_policy(), observation(0)
    mirrored = {name: image[:, ::-1].copy() for name, image in seen.images.items()}
    view = {name: image[:, ::-1] for name, image in mirrored.items()}
    again = dataclasses.replace(seen, images=view)
    assert np.array_equal(policy.infer(again).positions, policy.infer(seen).positions)
