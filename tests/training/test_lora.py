"""Adapters: they change nothing at first, learn alone, end in a policy as ever."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError
from fastvla_core.models.adapters import adapted_layers, add_adapters, merged_state
from fastvla_core.models.lora import LoraConfig
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.finetune import Trainer
from training.recipe import TrainConfig

EXPERT = LoraConfig(rank=2, alpha=4.0, modules=("expert.layers.*",))
TRAIN = dataclasses.replace(CONFIG, lora=EXPERT, learning_rate=1e-2)


def observation() -> Observation:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Observation(
        stamp_ns=1,
        task="pick up the red cube",
        images={"front": image, "wrist": image},
        state=np.zeros(7, np.float32),
    )


def trainer(policy: FastVLA, out: Path, config: TrainConfig = TRAIN, base: str = "") -> Trainer:
    out.mkdir(parents=True, exist_ok=True)
    return Trainer(policy, dataset=dataset_for(policy), config=config, out=out, base=base)


def actions(policy: FastVLA) -> np.ndarray:
    policy.reset()
    return policy.infer(observation()).positions


def test_a_fresh_adapter_changes_nothing():
    policy = small_policy()
    before = actions(policy)
    names = add_adapters(policy.model, EXPERT)
    assert names
    assert all(name.startswith("expert.layers.") for name in names)
    assert np.array_equal(actions(policy), before)


def test_only_the_adapters_and_what_is_named_whole_is_trained():
    policy = small_policy()
    config = dataclasses.replace(EXPERT, whole=("expert.action_out",))
    add_adapters(policy.model, config)
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert {n for n in trained if ".lora_" not in n} == {
        "expert.action_out.weight",
        "expert.action_out.bias",
    }
    assert len(trained) == 2 + 2 * len(adapted_layers(policy.model))


def test_the_merged_policy_acts_like_the_trained_one(tmp_path: Path):
    policy = small_policy()
    untrained = actions(policy)
    folder = trainer(policy, tmp_path).run()
    merged = FastVLA.from_pretrained(folder)
    assert not adapted_layers(merged.model)
    np.testing.assert_allclose(actions(merged), actions(policy), atol=1e-5)
    assert np.abs(actions(merged) - untrained).max() > 1e-3


def test_the_adapter_alone_loads_onto_its_base(tmp_path: Path):
    small_policy().save_pretrained(tmp_path / "base")
    policy = FastVLA.from_pretrained(tmp_path / "base")
    config = dataclasses.replace(
        TRAIN, lora=dataclasses.replace(EXPERT, whole=("expert.action_out",))
    )
    folder = trainer(policy, tmp_path / "run", config, base=str(tmp_path / "base")).run()
    adapter = tmp_path / "run" / "adapter"
    size = (adapter / "adapter_model.safetensors").stat().st_size
    assert size < 0.2 * (folder / "model.safetensors").stat().st_size
    loaded = FastVLA.from_pretrained(adapter)
    merged = FastVLA.from_pretrained(folder)
    np.testing.assert_allclose(actions(loaded), actions(merged), atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_packed_base_is_adapted_and_saved_at_full_precision(tmp_path: Path, quantization):
    policy = small_policy()
    lora = dataclasses.replace(EXPERT, quantization=quantization)
    run = trainer(policy, tmp_path, dataclasses.replace(TRAIN, lora=lora, steps=30))
    points: list[float] = []
    folder = run.run(report=lambda point, _: points.append(point.loss))
    assert points[-1] < points[0]
    merged = FastVLA.from_pretrained(folder)
    assert merged.quantization is None
    np.testing.assert_allclose(actions(merged), actions(policy), atol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_run_with_adapters_resumes_exactly(tmp_path: Path, dropout: float):
    config = dataclasses.replace(TRAIN, lora=dataclasses.replace(EXPERT, dropout=dropout))
    straight, resumed = small_policy(), small_policy()
    trainer(straight, tmp_path / "straight", config).run()
    run = trainer(small_policy(), tmp_path / "resumed", config)
    step = run._step
    stop = KeyboardInterrupt()

    def dying(number, batch):
        if number == 5:
            raise stop
        return step(number, batch)

    run._step = dying
    with pytest.raises(KeyboardInterrupt):
        run.run()
    # As in a new process, whose generators have drawn other numbers by now.
    torch.manual_seed(99)
    trainer(resumed, tmp_path / "resumed", config).run()
    state = resumed.model.state_dict()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_merging_gives_back_the_names_of_the_network():
    policy = small_policy()
    before = policy.model.state_dict()
    plain = {name: value.clone() for name, value in before.items()}
    add_adapters(policy.model, EXPERT)
    merged = merged_state(policy.model)
    assert merged.keys() == plain.keys()
    assert all(torch.equal(merged[name], plain[name]) for name in plain)


def test_patterns_that_match_nothing_name_some_layers():
    with pytest.raises(CheckpointError, match="match no linear layer") as caught:
        add_adapters(small_policy().model, LoraConfig(modules=("decoder.*",)))
    assert "prefix." in caught.value.mend


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"modules": ()}])
def test_numbers_that_describe_no_adapter_are_refused(wrong):
    with pytest.raises(CheckpointError, match="describe no adapter"):
        LoraConfig(**wrong)
