"""How well the language model of a policy answers: one question for all kinds of policies.

Shapes: m conversations, i pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.kernels.preprocess import PreprocessSpec
from fastvla_core.models.backbones.vlm.interface import VLMBackbone
from fastvla_core.models.heads.flow_expert import FlowExpertModel
from fastvla_core.models.heads.words import WritingModel, padded, told_by, word_loss
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.policies.pi0_fast.model import Pi0Fast
from fastvla_core.policy import FastVLA

# A prompt in front of actions is cut where the policy was trained so; a question never is.
_NO_LIMIT = 1 << 20
_TOKENIZER = "tokenizer"


class Answering(Protocol):
    """A language model that is asked about pictures.

    Attributes:
        spec: Of the pictures that it is shown.
    """

    spec: PreprocessSpec

    def trained(self) -> bool:
        """Whether any weight is trained that answers depend on."""
        ...

    def loss(
        self, pixels_mi3hw: Tensor, shown_mi: Tensor, turns: Sequence[tuple[str, str]]
    ) -> Tensor:
        """Mean cross-entropy of the words of the answers, their end included.

        Args:
            pixels_mi3hw: In [-1, 1].
            shown_mi: False where there is no picture.
            turns: A question and its answer for each row.
        """
        ...


def answering_of(policy: FastVLA) -> Answering:
    """What answers for a policy.

    Raises:
        DatasetError: it has no language model that can write.
    """
    network: Any = policy.model
    if isinstance(network, (FlowExpertModel, Pi0Fast)):
        processor: Any = policy.processor
        tokenizer: TextTokenizer = processor.tokenizers[_TOKENIZER]
        return _OwnDecoder(network, tokenizer, spec=processor.images.spec)
    backbone = getattr(network, "backbone", None)
    if isinstance(backbone, VLMBackbone) and hasattr(backbone.network, "lm_head"):
        height, width = policy.config.image_resolution
        return _Backbone(backbone, spec=PreprocessSpec(height=height, width=width))
    raise DatasetError(
        "training.conversations: this policy has no language model that writes words",
        mend="leave it out, or train SmolVLA, pi0, pi0.5, pi0-FAST or a composed policy "
        "(`policy: vla`)",
    )


class _OwnDecoder:
    """A decoder of ours: the question and a newline as a prompt, then the answer and its end.

    Source of the format: PaliGemma, arXiv:2407.07726.
    """

    def __init__(
        self, network: WritingModel, tokenizer: TextTokenizer, *, spec: PreprocessSpec
    ) -> None:
        self.spec = spec
        self._network, self._tokenizer = network, tokenizer
        self._end = tokenizer.special_id("eos_token")

    def trained(self) -> bool:
        return _any_trained((self._network.language_model, self._network.vision_tower))

    def loss(
        self, pixels_mi3hw: Tensor, shown_mi: Tensor, turns: Sequence[tuple[str, str]]
    ) -> Tensor:
        questions = [f"{question}\n" for question, _ in turns]
        tokens, token_mask = self._tokenizer.encode(
            questions, max_length=_NO_LIMIT, pad_to=None, cut=False
        )
        batch = {"images": pixels_mi3hw, "image_mask": shown_mi}
        device = pixels_mi3hw.device
        batch |= {"tokens": tokens.to(device), "token_mask": token_mask.to(device)}
        rows = [[*self._tokenizer.plain_ids(answer), self._end] for _, answer in turns]
        words, mask = padded(rows, device=device)
        network = self._network
        told = told_by(network.language_model, network.prefix_tokens(batch), words, mask)
        return word_loss(network.word_logits(told), words, mask)


class _Backbone:
    """A backbone of Transformers', in its own family's way of asking."""

    def __init__(self, backbone: VLMBackbone, *, spec: PreprocessSpec) -> None:
        self.spec = spec
        self._backbone: Any = backbone

    def trained(self) -> bool:
        return _any_trained((self._backbone,))

    def loss(
        self, pixels_mi3hw: Tensor, shown_mi: Tensor, turns: Sequence[tuple[str, str]]
    ) -> Tensor:
        pixels = (pixels_mi3hw * 0.5 + 0.5).clamp(0, 1)
        images = self._backbone.encode_images(pixels, image_mask_bc=shown_mi)
        questions, answers = zip(*turns)
        prefix = self._backbone.embed(images, questions, answers=answers)
        return self._backbone(prefix, labels=prefix.labels, layers=()).loss


def _any_trained(modules: Iterable[nn.Module]) -> bool:
    return any(p.requires_grad for module in modules for p in module.parameters())
