"""Knowledge insulation: who learns from what, and that both parts are learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import DatasetError
from fastvla_core.policy import FastVLA
from tests.core.models.lerobot.checkpoints import copied
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.finetune import Trainer
from training.insulation import Insulated
from training.recipe import InsulationTraining, TrainConfig

OPTIONS = InsulationTraining(width=32, bins=16, depth=2)
BACKBONES = {
    "nano": ("prefix.",),
    "smolvla": ("vision.", "connector.", "text.", "state_in."),
    "pi0": ("paligemma.",),
    "pi05": ("paligemma.",),
}


def policy_of(name: str, folder: Path) -> FastVLA:
    return small_policy() if name == "nano" else FastVLA.from_pretrained(copied(name, folder))


def batch_of(policy: FastVLA) -> dict[str, torch.Tensor]:
    random, config = torch.Generator().manual_seed(0), policy.config
    cameras, count = config.cameras, 4
    state, action = len(config.state_names), len(config.action_names)
    shape = (count, 32, 32, 3)
    return policy.training_batch(
        images={n: torch.randint(0, 256, shape, generator=random).byte() for n in cameras},
        image_mask=torch.ones(count, len(cameras), dtype=torch.bool),
        state=torch.randn(count, state, generator=random),
        actions=torch.randn(count, config.chunk_size, action, generator=random),
        tasks=["pick up the red cube"] * count,
    )


def losses(learner: Insulated, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return learner.loss(batch, generator=torch.Generator().manual_seed(0))


def learning(learner: Insulated) -> set[str]:
    named = learner.network.named_parameters()
    found = {n for n, p in named if p.grad is not None and bool((p.grad != 0).any())}
    learner.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", BACKBONES)
def test_the_flow_leaves_the_backbone_alone_and_the_bins_teach_it(name: str, tmp_path: Path):
    policy = policy_of(name, tmp_path)
    learner, batch = Insulated(policy.model, OPTIONS, seed=0).train(), batch_of(policy)
    losses(learner, batch)["flow_loss"].backward()
    flow = learning(learner)
    losses(learner, batch)["discrete_loss"].backward()
    discrete = learning(learner)
    assert flow
    assert not any(parameter.startswith(BACKBONES[name]) for parameter in flow)
    assert discrete
    assert all(parameter.startswith(BACKBONES[name]) for parameter in discrete)

    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    before = losses(learner, batch)
    for _ in range(12):
        optimizer.zero_grad()
        losses(learner, batch)["loss"].backward()
        optimizer.step()
    after = losses(learner, batch)
    assert after["flow_loss"] < 0.95 * before["flow_loss"]
    assert after["discrete_loss"] < 0.95 * before["discrete_loss"]


def trainer(policy: FastVLA, out: Path, config: TrainConfig) -> Trainer:
    out.mkdir(parents=True, exist_ok=True)
    return Trainer(policy, dataset=dataset_for(policy), config=config, out=out)


def test_a_recipe_trains_so_resumes_exactly_and_saves_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = dataclasses.replace(CONFIG, insulation=OPTIONS, steps=4)
    trainer(small_policy(), tmp_path / "straight", config).run()
    step = Trainer._step

    def dying(self: Trainer, number: int, batch: object) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            trainer(small_policy(), tmp_path / "resumed", config).run()
    trainer(small_policy(), tmp_path / "resumed", config).run()
    one, two = (
        FastVLA.from_pretrained(tmp_path / name / "policy").model.state_dict()
        for name in ("straight", "resumed")
    )
    assert one.keys() == small_policy().model.state_dict().keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_network_without_a_flow_expert_is_refused():
    with pytest.raises(DatasetError, match="no flow expert") as caught:
        Insulated(torch.nn.Linear(2, 2), OPTIONS, seed=0)
    assert "knowledge_insulation" in caught.value.mend


@pytest.mark.parametrize("wrong", [{"bins": 1}, {"weight": 0.0}, {"limit": -1.0}, {"depth": 0}])
def test_numbers_that_teach_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(DatasetError, match="teach nothing"):
        InsulationTraining(**wrong)
