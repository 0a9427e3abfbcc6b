"""Co-training: a language model goes on answering about pictures while a policy learns to act.

Shapes: m conversations, i pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.kernels.preprocess import preprocess
from fastvla_core.policy import FastVLA
from training.answers import answering_of
from training.interop.conversations import Conversation, load_conversations
from training.learning_options import CoTraining


class CoTrained(nn.Module):
    """A policy's network, whose loss has a part for conversations.

    Which ones are drawn, and which turn of each, follows from the generator of the step alone.

    Args:
        policy: Its network is trained in place.
        conversations: What is drawn from.
    Raises:
        DatasetError: the policy has no language model that can write, or none that is trained.
    """

    def __init__(
        self, policy: FastVLA, options: CoTraining, *, conversations: Sequence[Conversation]
    ) -> None:
        super().__init__()
        self._answering = answering_of(policy)
        if not self._answering.trained():
            raise DatasetError(
                "training.conversations: nothing of the language model and its vision is trained",
                mend="leave it out, or train some of it: `frozen` of a composed policy without "
                "'all', or `lora.modules` that match its layers",
            )
        self.network = policy.model
        self._options, self._conversations = options, conversations

    def loss(self, batch: Mapping[str, Any], *, generator: torch.Generator) -> dict[str, Tensor]:
        """The actions' loss, and the weighted cross-entropy of answers.

        Returns:
            loss: scalar with gradient. action_loss, answer_loss: the two parts, the second before
                its weight.
        """
        network: Any = self.network
        acting = network.loss(batch, generator=generator)["loss"]
        count = max(1, round(self._options.share * len(batch["action"])))
        answering = self._answer_loss(count, generator, device=acting.device)
        return {
            "loss": acting + self._options.weight * answering,
            "action_loss": acting,
            "answer_loss": answering,
        }

    def _answer_loss(
        self, count: int, generator: torch.Generator, *, device: torch.device
    ) -> Tensor:
        chosen = [self._conversations[_below(len(self._conversations), generator)]
                  for _ in range(count)]  # fmt: skip
        turns = [_turn(one, _below(len(one.turns), generator)) for one in chosen]
        pixels_mi3hw, shown_mi = self._pictures(chosen, device=device)
        return self._answering.loss(pixels_mi3hw, shown_mi, turns)

    def _pictures(
        self, chosen: Sequence[Conversation], *, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1]; black, and not shown, where a conversation has fewer than others."""
        most, spec = max(len(one.images) for one in chosen), self._answering.spec
        pixels = torch.full((len(chosen), most, 3, spec.height, spec.width), -1.0, device=device)
        shown = torch.zeros(len(chosen), most, dtype=torch.bool, device=device)
        for row, one in enumerate(chosen):
            for column, picture in enumerate(one.pictures()):
                seen = preprocess([torch.from_numpy(picture).to(device)], spec)[0]
                pixels[row, column] = seen.to(pixels.dtype)
                shown[row, column] = True
        return pixels, shown


def read_lists(options: CoTraining) -> tuple[Conversation, ...]:
    """The conversations of all lists.

    Raises:
        DatasetError: a list cannot be read, or an entry of it cannot be used.
    """
    lists = [load_conversations(path) for path in options.lists]
    left_out = [line for found in lists for line in found.left_out]
    if left_out:
        listed = "".join(f"\n  {line}" for line in left_out[:3])
        raise DatasetError(
            f"training.conversations: {len(left_out)} entries cannot be used{listed}",
            mend="correct them, or take them out of the list",
        )
    return tuple(one for found in lists for one in found.conversations)


def digest_of(conversations: Sequence[Conversation]) -> str:
    """Stands for what is said about which pictures."""
    text = repr([([Path(i).name for i in one.images], one.turns) for one in conversations])
    return hashlib.sha256(text.encode()).hexdigest()


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _turn(conversation: Conversation, turn: int) -> tuple[str, str]:
    """The question of a turn behind what was said before, and its answer."""
    said = [line for pair in conversation.turns[:turn] for line in pair]
    question, answer = conversation.turns[turn]
    return "\n".join([*said, question]), answer
