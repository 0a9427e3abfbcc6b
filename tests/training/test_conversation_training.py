"""Conversations beside recordings: the backbone learns to answer while the policy learns to act."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.policy import FastVLA
from tests.core.models.vla.tiny import batch, vla_policy, write_backbone
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.conversation_training import CoTrained, read_lists
from training.finetune import Trainer
from training.recipe import CoTraining, TrainConfig


@pytest.fixture
def talk(tmp_path: Path) -> CoTraining:
    """Two pictures, of which one conversation shows both and goes on."""
    for name, colour in (("red", (0, 0, 200)), ("blue", (200, 0, 0))):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 12, 3), colour, np.uint8))
    rows = [
        {"image": "red.png", "conversations": said("Which colour?", "Red.")},
        {
            "images": ["red.png", "blue.png"],
            "conversations": [*said("How many?", "Two."), *said("The second?", "Blue.")],
        },
    ]
    (tmp_path / "talk.json").write_text(json.dumps(rows))
    return CoTraining(lists=(str(tmp_path / "talk.json"),), share=0.5)


def said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def learner_of(policy: FastVLA, talk: CoTraining) -> CoTrained:
    size = policy.config.image_resolution
    said = read_lists(talk)
    return CoTrained(policy.model, talk, conversations=said, image_resolution=size)


def test_answers_are_learnt_beside_actions(talk: CoTraining, tmp_path: Path):
    policy = vla_policy(write_backbone(tmp_path, "smolvlm"))
    learner, given = learner_of(policy, talk).train(), batch(policy)

    def losses(seed: int = 0) -> dict[str, torch.Tensor]:
        return learner.loss(given, generator=torch.Generator().manual_seed(seed))

    losses()["answer_loss"].backward()
    taught = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert any("vision_model" in name for name in taught)
    assert all(name.startswith("backbone.") for name in taught)
    assert torch.equal(losses()["answer_loss"], losses()["answer_loss"])
    drawn = {losses(seed)["answer_loss"].item() for seed in range(6)}
    assert len(drawn) > 1

    before = losses()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        losses()["loss"].backward()
        optimizer.step()
    after = losses()
    assert after["answer_loss"] < 0.8 * before["answer_loss"]
    assert after["action_loss"] < before["action_loss"]


def test_a_recipe_s_run_mixes_them_in_and_refuses_other_lists_when_it_goes_on(
    talk: CoTraining, tmp_path: Path
):
    config = dataclasses.replace(CONFIG, steps=2, batch_size=2, conversations=talk)
    place = write_backbone(tmp_path, "smolvlm")

    def run(config: TrainConfig) -> Path:
        policy = vla_policy(place)
        contract = small_policy().config.robot_contract
        policy.config = dataclasses.replace(policy.config, robot_contract=contract)
        (tmp_path / "out").mkdir(exist_ok=True)
        return Trainer(
            policy, dataset=dataset_for(policy), config=config, out=tmp_path / "out"
        ).run()

    FastVLA.from_pretrained(run(config))
    file = Path(talk.lists[0])
    file.write_text(file.read_text().replace("Blue.", "Green."))
    with pytest.raises(CheckpointError, match="began with other conversations"):
        run(config)


def test_a_policy_without_words_is_refused(talk: CoTraining):
    with pytest.raises(DatasetError, match="no head that writes words"):
        learner_of(small_policy(), talk)


def test_entries_that_cannot_be_used_end_the_run_before_it_starts(talk: CoTraining):
    file = Path(talk.lists[0])
    file.write_text(file.read_text().replace("blue.png", "gone.png"))
    with pytest.raises(DatasetError, match=r"1 entries cannot be used\n.*gone.png"):
        read_lists(talk)


@pytest.mark.parametrize("wrong", [{"lists": ()}, {"share": 0.0}, {"weight": 0.0}])
def test_numbers_that_teach_nothing_are_refused(wrong: dict[str, object]):
    with pytest.raises(DatasetError, match="teach nothing"):
        CoTraining(**{"lists": ("talk.json",), **wrong})
