"""Knowledge insulation: who learns from what, and that both parts are learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.models.lerobot.fast_tokenizer import load_fast_tokenizer
from fastvla_core.models.policies.pi0_fast.config import action_words
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot_adaptation import adapted_policy
from tests.core.models.heads.contexts import make_fast_tokenizer
from tests.core.models.lerobot.checkpoints import DATA, copied, positions
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.finetune import Trainer
from training.insulation import Insulated, insulated
from training.learning_options import InsulationTraining
from training.recipe import TrainConfig

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


def tokenizer(folder: Path) -> dict[str, Any]:
    return {"tokens": "fast", "action_tokenizer": str(make_fast_tokenizer(folder / "fast"))}


@pytest.mark.parametrize("tokens", ["bins", "fast"])
@pytest.mark.parametrize("name", BACKBONES)
def test_the_flow_leaves_the_backbone_alone_and_discrete_actions_teach_it(
    name: str, tokens: str, tmp_path: Path
):
    policy = policy_of(name, tmp_path)
    options = OPTIONS
    if tokens == "fast":
        options = dataclasses.replace(OPTIONS, **tokenizer(tmp_path))
    learner, batch = insulated(policy, options, seed=0)[0].train(), batch_of(policy)
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


@pytest.mark.parametrize("name", BACKBONES)
def test_every_token_of_a_chunk_and_its_end_count_and_padding_does_not(name: str, tmp_path: Path):
    policy = policy_of(name, tmp_path)
    options = dataclasses.replace(OPTIONS, **tokenizer(tmp_path))
    learner = insulated(policy, options, seed=0)[0].eval()
    # Chunks of very different lengths: one is constant.
    batch = batch_of(policy)
    batch["action"][0] = 0.5
    tokens, mask = learner._tokens(batch)
    lengths = mask.sum(dim=1)
    assert lengths[0] < lengths[1]
    with torch.no_grad():
        together = losses(learner, batch)["discrete_loss"]
        noisy = {"action_tokens": torch.where(mask, tokens, 7), "action_token_mask": mask}
        assert torch.equal(losses(learner, {**batch, **noisy})["discrete_loss"], together)
        alone = [
            losses(learner, {key: value[row : row + 1] for key, value in batch.items()})
            for row in range(len(lengths))
        ]
        # Words begin with one that nobody has to guess.
        counted = lengths - int(name != "nano")
        expected = sum(one["discrete_loss"] * n for one, n in zip(alone, counted)) / counted.sum()
        torch.testing.assert_close(together, expected)
        # The end of the shortest one counts.
        last = mask.clone()
        last[0, lengths[0] - 1] = False
        without = {"action_tokens": tokens, "action_token_mask": last}
        assert losses(learner, {**batch, **without})["discrete_loss"] != together
    ends = tokens.gather(1, lengths[:, None] - 1)
    assert len(set(ends.flatten().tolist())) == 1
    actions = batch["action"][..., : len(policy.config.action_names)]
    fast = load_fast_tokenizer(tmp_path / "fast")
    if name != "nano":
        text = policy.processor.tokenizers["tokenizer"]
        assert ends[0] == text.special_id("eos_token")
        words = action_words(text, skip=128)
        row = tokens[0, : lengths[0]].tolist()
        assert row[: 1 + len(words.prefix)] == [words.bos, *words.prefix]
        assert row[-2] == words.end
        told = [words.last - word for word in row[1 + len(words.prefix) : -2]]
    else:
        told = tokens[0, : lengths[0] - 1].tolist()
    chunk = fast.decode(told, steps=actions.shape[1], dims=actions.shape[2])
    assert np.abs(chunk * options.limit - 0.5).max() < 0.5 * options.limit / 10


def test_a_vocabulary_without_room_for_actions_is_refused(tmp_path: Path):
    policy = policy_of("smolvla", tmp_path)
    # 256 tokens, and the tiny language model has 252 words beside those that are left out.
    place = DATA / "pi0_fast" / "checkpoint" / "fast_tokenizer"
    options = dataclasses.replace(OPTIONS, tokens="fast", action_tokenizer=str(place))
    with pytest.raises(DatasetError, match="380 words, too few for the 256 tokens"):
        insulated(policy, options, seed=0)


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


@pytest.mark.parametrize("name", ["smolvla", "pi05"])
def test_what_was_trained_on_words_of_actions_serves_as_before(name: str, tmp_path: Path):
    options = dataclasses.replace(OPTIONS, **tokenizer(tmp_path))
    config = dataclasses.replace(CONFIG, insulation=options, steps=1, batch_size=2)
    random = torch.Generator().manual_seed(0)
    start = adapted_policy(
        str(copied(name, tmp_path)),
        contract=load_contract("tabletop"),
        dt_s=0.1,
        state_ns=torch.randn(9, 7, generator=random),
        actions_nta=torch.randn(9, 10, 7, generator=random),
        floor_a=torch.full((7,), 0.01),
    )
    before, seen = positions(start), start.model.state_dict().keys()
    folder = trainer(start, tmp_path / "out", config).run()
    served = FastVLA.from_pretrained(folder)
    assert served.model.state_dict().keys() == seen
    after = positions(served)
    assert np.array_equal(after, positions(start))
    assert after.shape == before.shape
    assert not np.array_equal(after, before)


def test_another_action_tokenizer_does_not_go_on_with_a_run(tmp_path: Path):
    options = dataclasses.replace(OPTIONS, **tokenizer(tmp_path))
    config = dataclasses.replace(CONFIG, insulation=options, steps=2)
    trainer(small_policy(), tmp_path / "out", config).run()
    make_fast_tokenizer(tmp_path / "fast", seed=1)
    with pytest.raises(CheckpointError, match="began with other action tokenizer"):
        trainer(small_policy(), tmp_path / "out", config).run()


def test_a_network_without_a_flow_expert_is_refused():
    with pytest.raises(DatasetError, match="no flow expert") as caught:
        Insulated(torch.nn.Linear(2, 2), OPTIONS, seed=0)
    assert "knowledge_insulation" in caught.value.mend


@pytest.mark.parametrize(
    "wrong", [{"bins": 1}, {"weight": 0.0}, {"limit": -1.0}, {"depth": 0}, {"max_tokens": 1}]
)
def test_numbers_that_teach_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(DatasetError, match="teach nothing"):
        InsulationTraining(**wrong)
