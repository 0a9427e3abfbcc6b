"""Training with fewer visual tokens: the gap to the whole policy closes, step by step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import DatasetError
from fastvla_core.models.lora import LoraConfig
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA
from fastvla_core.quant import memory_bytes
from tests.core.models.lerobot.checkpoints import copied
from tests.core.models.tiny import model_batch, tiny_policy
from training.finetune import Trainer
from training.learning_options import PruningTraining
from training.recipe import Recipe, TrainConfig, load_recipe
from training.token_pruning import PruningObjective

from .test_finetune import CONFIG, dataset_for, small_policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mode", ["adaptive", "learned", "uniform", "pool"])
def test_distillation_closes_the_gap_to_all_tokens(mode):
    config = PruningTraining(mode=mode, keep=0.25, curriculum_steps=10, distillation=1e3)
    policy = tiny_policy(vision_tokens=config.vision_tokens)
    model = policy.model
    objective = PruningObjective(model, config)
    held_out = model_batch(policy.config, rows=8, seed=1)
    before = objective.distance(model, held_out, generator=generator(9))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(20):
        batch = model_batch(policy.config, rows=16, seed=100 + step)
        # The actions are noise: nearly all that there is to learn is the teacher.
        loss = objective(model, batch, generator=generator(step), step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = objective.distance(model, held_out, generator=generator(9))
    assert before > 0
    assert after < 0.5 * before


def test_the_share_falls_through_the_prepared_ones_to_the_last():
    config = PruningTraining(mode="uniform", keep=0.25, curriculum_steps=100)
    shares = [1.0 if not o.active else o.keep for o in map(config.at, range(0, 140, 10))]
    assert shares == sorted(shares, reverse=True)
    assert set(shares) == {1.0, 0.75, 0.5, 0.375, 0.25}
    assert config.at(0) == VisionTokens()
    assert config.at(99).keep == 0.25
    assert PruningTraining(keep=0.25).at(0).keep == 0.25


def test_a_scorer_is_trained_from_the_first_step_on():
    config = PruningTraining(mode="learned", keep=0.25, curriculum_steps=100)
    assert config.at(0) == VisionTokens(pruning="learned", keep=0.75)


def test_sparsity_brings_the_chances_near_the_share():
    config = PruningTraining(mode="learned", keep=0.25, distillation=0.0, sparsity=10.0)
    policy = tiny_policy(vision_tokens=config.vision_tokens)
    model, batch = policy.model, model_batch(policy.config, rows=4)
    objective = PruningObjective(model, config)
    scorer = model.prefix.token_scorer
    optimizer = torch.optim.Adam(scorer.parameters(), lr=0.02)

    def chance() -> float:
        with torch.no_grad():
            _, prefix = model.observed(batch, config.vision_tokens)
        return float(prefix.kept.gates_bi.mean())

    before = chance()
    for step in range(40):
        optimizer.zero_grad()
        objective(model, batch, generator=generator(step), step=step).backward()
        optimizer.step()
    assert abs(chance() - 0.25) < 0.5 * abs(before - 0.25)


def test_a_killed_run_with_a_scorer_resumes_to_the_same_policy(tmp_path: Path):
    pruning = PruningTraining(mode="learned", keep=0.5, curriculum_steps=4)
    config = dataclasses.replace(CONFIG, pruning=pruning)

    def run(out: Path, steps: int) -> FastVLA:
        out.mkdir(exist_ok=True)
        policy = small_policy().reconfigured(vision_tokens=pruning.vision_tokens)
        trainer = Trainer(policy, dataset=dataset_for(policy), config=config, out=out)
        # As when it is killed: everything behind the step is missing.
        batches = trainer._batches
        trainer._batches = lambda todo: batches(range(todo.start, min(todo.stop, steps)))
        trainer.run()
        return policy

    straight = run(tmp_path / "straight", 6)
    run(tmp_path / "resumed", 4)
    resumed = run(tmp_path / "resumed", 6)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    saved = FastVLA.from_pretrained(tmp_path / "resumed" / "policy")
    assert saved.vision_tokens == pruning.vision_tokens


def test_the_teacher_of_packed_layers_is_counted_whole(tmp_path: Path):
    lora = LoraConfig(rank=2, alpha=4.0, modules=("expert.layers.*",), quantization="nf4")
    without = dataclasses.replace(CONFIG, lora=lora)
    weights = []
    for config in (without, dataclasses.replace(without, pruning=PruningTraining(keep=0.5))):
        policy = small_policy()
        whole = memory_bytes(policy.model)
        trainer = Trainer(policy, dataset=dataset_for(policy), config=config, out=tmp_path)
        weights.append(trainer.memory.weights)
    assert weights[0] < whole
    assert weights[1] - weights[0] == whole


def test_the_foreign_policies_learn_it_too(tmp_path: Path):
    policy = FastVLA.from_pretrained(copied("smolvla", tmp_path))
    observation = policy.processor.random_observation(0)
    batch = dict(policy.processor.observation_batch([observation] * 2, device=policy.device))
    batch["action"] = torch.randn(2, *policy.config.noise_shape, generator=generator())
    objective = PruningObjective(policy.model, PruningTraining(keep=0.5))
    loss = objective(policy.model, batch, generator=generator(), step=0)
    loss.backward()
    assert torch.isfinite(loss)
    assert policy.model.connector.weight.grad.abs().sum() > 0


def test_a_way_that_the_policy_does_not_have_is_refused(tmp_path: Path):
    policy = FastVLA.from_pretrained(copied("smolvla", tmp_path))
    with pytest.raises(DatasetError, match="cannot prune by 'learned'"):
        PruningObjective(policy.model, PruningTraining(mode="learned"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": "none"}, "mode 'none'"),
        ({"keep": 0.4}, "keep 0.4"),
        ({"distillation": -1.0}, "distillation is below 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(DatasetError, match=reason):
        PruningTraining(**fields)


def test_a_new_policy_has_no_teacher():
    training = TrainConfig(steps=1, pruning=PruningTraining())
    fields = {"name": "n", "contract": "tabletop", "policy": "nano", "rate_hz": 10.0}
    with pytest.raises(DatasetError, match="nothing to say yet"):
        Recipe(**fields, new=True, training=training)
    assert Recipe(**fields, new=False, training=training).training.pruning is not None


def test_a_recipe_file_says_it_in_its_training(tmp_path: Path):
    file = tmp_path / "r.yaml"
    text = "name: r\ncontract: tabletop\npolicy: nano\nnew: false\nrate_hz: 10.0\n"
    pruning = "pruning: {mode: adaptive, keep: 0.25, curriculum_steps: 50}"
    file.write_text(f"{text}training: {{steps: 5, {pruning}}}\n")
    expected = PruningTraining(keep=0.25, curriculum_steps=50)
    assert load_recipe(str(file)).training.pruning == expected
