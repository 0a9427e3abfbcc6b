"""Co-training: a backbone goes on answering questions about pictures while a policy learns to act.

Shapes: m conversations, i pictures, p prefix tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.kernels.preprocess import PreprocessSpec, preprocess
from training.interop.conversations import Conversation, load_conversations
from training.recipe import CoTraining


class CoTrained(nn.Module):
    """A composed policy's network, whose loss has a part for conversations.

    Which ones are drawn, and which turn of each, follows from the generator of the step alone.

    Args:
        network: Trained in place.
        conversations: What is drawn from.
        image_resolution: Height and width that pictures are brought to.
    Raises:
        DatasetError: the network has no language model that is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        options: CoTraining,
        *,
        conversations: Sequence[Conversation],
        image_resolution: tuple[int, int],
    ) -> None:
        super().__init__()
        backbone = getattr(network, "backbone", None)
        if not hasattr(getattr(backbone, "network", None), "lm_head"):
            raise DatasetError(
                "training.conversations: this policy has no head that writes words",
                mend="leave it out, or train a composed policy (`policy: vla`)",
            )
        assert isinstance(backbone, nn.Module)
        if not any(p.requires_grad for p in backbone.parameters()):
            raise DatasetError(
                "training.conversations: nothing of the backbone is trained",
                mend="leave it out, or take 'all' out of the policy's `frozen`",
            )
        self.network = network
        self._options, self._conversations = options, conversations
        height, width = image_resolution
        self._spec = PreprocessSpec(height=height, width=width)

    def loss(self, batch: Mapping[str, Any], *, generator: torch.Generator) -> dict[str, Tensor]:
        """The actions' loss, and the weighted cross-entropy of answers.

        Returns:
            loss: scalar with gradient. action_loss, answer_loss: the two parts, the second before
                its weight.
        """
        network: Any = self.network
        acting = network.loss(batch, generator=generator)["loss"]
        count = max(1, round(self._options.share * len(batch["action"])))
        answering = self._answer_loss(count, generator)
        return {
            "loss": acting + self._options.weight * answering,
            "action_loss": acting,
            "answer_loss": answering,
        }

    def _answer_loss(self, count: int, generator: torch.Generator) -> Tensor:
        backbone: Any = self.network.backbone
        chosen = [self._conversations[_below(len(self._conversations), generator)]
                  for _ in range(count)]  # fmt: skip
        turns = [_turn(one, _below(len(one.turns), generator)) for one in chosen]
        pixels_mi3hw, shown_mi = self._pictures(chosen, device=backbone.device)
        images = backbone.encode_images(pixels_mi3hw, image_mask_bc=shown_mi)
        questions, answers = zip(*turns)
        prefix = backbone.embed(images, questions, answers=answers)
        return backbone(prefix, labels=prefix.labels, layers=()).loss

    def _pictures(
        self, chosen: Sequence[Conversation], *, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Pictures in [0, 1]; black, and not shown, where a conversation has fewer than another."""
        most = max(len(one.images) for one in chosen)
        height, width = self._spec.height, self._spec.width
        pixels = torch.zeros(len(chosen), most, 3, height, width, device=device)
        shown = torch.zeros(len(chosen), most, dtype=torch.bool, device=device)
        for row, one in enumerate(chosen):
            for column, picture in enumerate(one.pictures()):
                seen = preprocess([torch.from_numpy(picture).to(device)], self._spec)[0]
                pixels[row, column] = (seen.float() * 0.5 + 0.5).clamp(0, 1)
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
