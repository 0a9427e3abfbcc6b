"""Conversations beside recordings: the backbone learns to answer while the policy learns to act."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.models.adapters import add_adapters
from fastvla_core.models.heads.flow_parts import Prefix
from fastvla_core.models.heads.words import behind_each
from fastvla_core.models.lora import LoraConfig
from fastvla_core.policy import FastVLA
from tests.core.models.lerobot.checkpoints import copied
from tests.core.models.vla.tiny import batch, vla_policy, write_backbone
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.answers import answering_of
from training.conversation_training import CoTrained, read_lists
from training.finetune import Trainer
from training.learning_options import CoTraining
from training.recipe import TrainConfig


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
    return CoTrained(policy, talk, conversations=read_lists(talk))


def composed(folder: Path) -> tuple[FastVLA, dict[str, Any]]:
    policy = vla_policy(write_backbone(folder, "smolvlm"))
    return policy, batch(policy)


def published(name: str, folder: Path) -> tuple[FastVLA, dict[str, Any]]:
    """A tiny checkpoint of a policy that people have, and two samples."""
    policy = FastVLA.from_pretrained(copied(name, folder))
    seen, dims = policy.processor.random_observation(0), len(policy.config.action_names)
    random = torch.Generator().manual_seed(0)
    given = policy.training_batch(
        images={key: torch.from_numpy(image)[None].repeat(2, 1, 1, 1)
                for key, image in seen.images.items()},
        image_mask=torch.ones(2, len(policy.config.cameras), dtype=torch.bool),
        state=torch.from_numpy(seen.state).expand(2, -1),
        actions=0.1 * torch.randn(2, policy.config.chunk_size, dims, generator=random),
        tasks=["pick up the red cube", "stop"],
    )  # fmt: skip
    return policy, given


# What answers, and what learns from answers of what sees.
POLICIES = {
    "vla": (("backbone.",), "vision_model"),
    "smolvla": (("vision.", "connector.", "text."), "vision."),
    "pi0": (("paligemma.",), "vision."),
    "pi05": (("paligemma.",), "vision."),
    "pi0_fast": (("paligemma.",), "vision."),
}


@pytest.mark.parametrize("name", POLICIES)
def test_answers_are_learnt_beside_actions(name: str, talk: CoTraining, tmp_path: Path):
    policy, given = composed(tmp_path) if name == "vla" else published(name, tmp_path)
    learner = learner_of(policy, talk).train()
    answering, vision = POLICIES[name]

    def losses(seed: int = 0) -> dict[str, torch.Tensor]:
        return learner.loss(given, generator=torch.Generator().manual_seed(seed))

    losses()["answer_loss"].backward()
    taught = {n for n, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(vision in name for name in taught)
    assert all(name.startswith(answering) for name in taught)
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


@pytest.mark.parametrize("name", ["smolvla", "pi0"])
def test_an_answer_counts_word_by_word_with_its_end(name: str, tmp_path: Path):
    """The loss is what the language model says, asked one word after the other."""
    policy, _ = published(name, tmp_path)
    answering, model = answering_of(policy), policy.model
    random = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 2, 3, answering.spec.height, answering.spec.width, generator=random)
    shown = torch.tensor([[True, True], [True, False]])
    turns = [("How many cubes?", "One red cube."), ("What colour is it?", "Blue.")]
    text = policy.processor.tokenizers["tokenizer"]
    asked, mask = text.encode([f"{q}\n" for q, _ in turns], max_length=99, pad_to=None, cut=False)
    said: list[torch.Tensor] = []
    with torch.no_grad():
        for row, (_, answer) in enumerate(turns):
            one = slice(row, row + 1)
            known = asked[one, : int(mask[row].sum())]
            seen = {"images": pixels[one][:, shown[row]], "image_mask": shown[one][:, shown[row]]}
            words = {"tokens": known, "token_mask": torch.ones_like(known, dtype=torch.bool)}
            tokens = model.prefix_tokens({**seen, **words})
            hidden, layers = model.language_model(tokens.x_bpw, tokens.positions_bp, tokens.allowed)
            read = Prefix(layers, tokens.mask_bp)
            told = [hidden[:, -1]]
            right = [*text.plain_ids(answer), text.special_id("eos_token")]
            behind = behind_each(model.language_model, read, torch.tensor([right[:-1]]))
            told += list(behind.unbind(dim=1))
            for output, word in zip(told, right, strict=True):
                said.append(-model.word_logits(output).log_softmax(dim=-1)[0, word])
        loss = answering.loss(pixels, shown, turns)
    torch.testing.assert_close(loss, torch.stack(said).mean(), atol=1e-5, rtol=1e-5)


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


def test_a_policy_without_words_is_refused_and_told_which_have_them(talk: CoTraining):
    with pytest.raises(DatasetError, match="no language model that writes words") as caught:
        learner_of(small_policy(), talk)
    assert "SmolVLA, pi0, pi0.5, pi0-FAST or a composed policy" in caught.value.mend


def test_a_language_model_that_is_not_trained_is_refused(talk: CoTraining, tmp_path: Path):
    policy, _ = published("pi0", tmp_path / "expert")
    add_adapters(policy.model, LoraConfig(rank=2, modules=("expert.*",)))
    with pytest.raises(DatasetError, match="nothing of the language model"):
        learner_of(policy, talk)
    policy, _ = published("pi0", tmp_path / "words")
    add_adapters(policy.model, LoraConfig(rank=2, modules=("paligemma.text.*q_proj",)))
    learner_of(policy, talk)


def test_entries_that_cannot_be_used_end_the_run_before_it_starts(talk: CoTraining):
    file = Path(talk.lists[0])
    file.write_text(file.read_text().replace("blue.png", "gone.png"))
    with pytest.raises(DatasetError, match=r"1 entries cannot be used\n.*gone.png"):
        read_lists(talk)


@pytest.mark.parametrize("wrong", [{"lists": ()}, {"share": 0.0}, {"weight": 0.0}])
def test_numbers_that_teach_nothing_are_refused(wrong: dict[str, object]):
    with pytest.raises(DatasetError, match="teach nothing"):
        CoTraining(**{"lists": ("talk.json",), **wrong})
