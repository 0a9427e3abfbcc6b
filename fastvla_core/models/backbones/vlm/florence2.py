"""Florence-2: an encoder reads images and words, a decoder speaks; the prefix is the encoder's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvla_core.errors import ObservationError
from fastvla_core.models.backbones.vlm.fixed import SquareImages
from fastvla_core.models.backbones.vlm.images import IMAGENET_MEAN, IMAGENET_STD, square_edge
from fastvla_core.models.backbones.vlm.interface import (
    BackboneOutput,
    ImageTokens,
    LanguageShape,
    PrefixEmbeds,
)
from fastvla_core.models.backbones.vlm.text import Prompt, PromptTokens

# The tower's first convolution reduces by 4, each of the three others by 2.
_STRIDE = 32


class Florence2(SquareImages):
    """Hidden states, keys and values are those of the encoder. Source: arXiv:2311.06242."""

    network_class = "Florence2ForConditionalGeneration"
    prompt = Prompt(
        before="",
        image_open="",
        image_token="<image>",
        image_close="",
        after="<s>{text}</s>",
        answer_open="<s>",
        answer_close="</s>",
    )
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    @property
    def extra_tokens(self) -> int:
        """The mean over the image."""
        return 1

    def image_edge(self, settings: Mapping[str, Any]) -> int:
        """As the image settings say."""
        return square_edge(settings, default=768)

    def tokens_per_image(self) -> int:
        """One per place of the last feature map."""
        return (self.recipe.height // _STRIDE) ** 2

    @property
    def language_shape(self) -> LanguageShape:
        """The encoder's sizes."""
        config = self.text_config
        heads = config.encoder_attention_heads
        return LanguageShape(
            layers=config.encoder_layers,
            width=config.d_model,
            heads=heads,
            kv_heads=heads,
            head_dim=config.d_model // heads,
        )

    @property
    def language_model(self) -> Any:
        """The encoder."""
        return self.network.model.language_model.encoder

    @property
    def text_config(self) -> Any:
        """See `TransformersBackbone.text_config`."""
        return self.network.config.text_config

    def positions(
        self, tokens: PromptTokens, visible_bp: Tensor, images: ImageTokens | None
    ) -> Tensor:
        """The encoder's learned positions are those of the places, whoever is missing.

        Raises:
            ObservationError: there are more tokens than positions.
        """
        rows, width = visible_bp.shape
        most = self.text_config.max_position_embeddings
        if width > most:
            raise ObservationError(
                f"images and words make {width} tokens, the encoder has positions for {most}",
                mend="use fewer cameras, or a shorter instruction",
            )
        return torch.arange(width).expand(rows, -1)

    def labels(
        self, ids_bp: Tensor, answer_bp: Tensor, answers: Sequence[str] | None
    ) -> Tensor | None:
        """What the decoder should say: [b, l]."""
        if answers is None:
            return None
        prompt = self.prompt
        rows = [
            torch.tensor(self.tokenizer.encode(prompt.answer_open + text + prompt.answer_close))
            for text in answers
        ]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        return padded.to(ids_bp.device)

    def tokenized(
        self,
        images: ImageTokens | None,
        texts: Sequence[str],
        *,
        answers: Sequence[str] | None = None,
        pad_left: bool = False,
    ) -> PromptTokens:
        """Answers are the decoder's, and learned positions count from the first token."""
        if answers is not None and len(answers) != len(texts):
            raise ObservationError(
                f"{len(texts)} instructions and {len(answers)} answers",
                mend="give one instruction and answer per row",
            )
        return super().tokenized(images, texts)

    def forward(
        self,
        prefix: PrefixEmbeds,
        *,
        layers: Sequence[int] | None = None,
        with_key_values: bool = False,
        labels: Tensor | None = None,
    ) -> BackboneOutput:
        """See `VLMBackbone.forward`."""
        chosen = self.chosen_layers(layers)
        with _listening(self.language_model.layers, chosen if with_key_values else ()) as heard:
            output = self.language_model(
                inputs_embeds=prefix.embeds_bpd,
                attention_mask=prefix.mask_bp.long(),
                output_hidden_states=bool(chosen),
                return_dict=True,
            )
        last = output.last_hidden_state
        shape = (-1, self.language_shape.heads, self.language_shape.head_dim)
        pairs = tuple(
            (
                heard[index, "k_proj"].unflatten(-1, shape[1:]).transpose(1, 2),
                heard[index, "v_proj"].unflatten(-1, shape[1:]).transpose(1, 2),
            )
            for index in (chosen if with_key_values else ())
        )
        return BackboneOutput(
            hidden_states=tuple(output.hidden_states[layer + 1] for layer in chosen),
            last_hidden_bpd=last,
            key_values=pairs if with_key_values else None,
            loss=None if labels is None else self._decoder_loss(last, prefix.mask_bp, labels),
        )

    def rotary(self, positions_bt: Tensor, *, layer: int) -> tuple[Tensor, Tensor] | None:
        """Positions are learned, not rotated."""
        self.chosen_layers([layer])
        return None

    def new_tokens(self, found_bt: Tensor, prompt_bp: Tensor) -> Tensor:
        """The decoder's tokens hold no prompt."""
        return found_bt

    def _decoder_loss(self, encoded_bpd: Tensor, mask_bp: Tensor, labels_bl: Tensor) -> Tensor:
        start = labels_bl.new_full((len(labels_bl), 1), self.text_config.decoder_start_token_id)
        given = torch.cat([start, labels_bl[:, :-1]], 1)
        decoded = self.network.model.language_model.decoder(
            input_ids=given.masked_fill(given == -100, self.pad_id),
            encoder_hidden_states=encoded_bpd,
            encoder_attention_mask=mask_bp.long(),
            use_cache=False,
        ).last_hidden_state
        counted = labels_bl != -100
        return F.cross_entropy(self.logits(decoded[counted]).float(), labels_bl[counted])


@contextmanager
def _listening(
    layers: nn.ModuleList, chosen: Sequence[int]
) -> Iterator[dict[tuple[int, str], Tensor]]:
    """What the layers' key and value projections give: the encoder itself keeps none."""
    heard: dict[tuple[int, str], Tensor] = {}

    def hook(key: tuple[int, str]) -> Callable[..., None]:
        def remember(module: nn.Module, given: Any, result: Tensor) -> None:
            heard[key] = result

        return remember

    handles = [
        layers[index].get_submodule(f"self_attn.{name}").register_forward_hook(hook((index, name)))
        for index in chosen
        for name in ("k_proj", "v_proj")
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
