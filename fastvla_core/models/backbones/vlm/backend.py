"""What all families that Transformers builds share; a family's own file says where it differs.

Shapes: as in `interface`; m images, H and W pixels of the vision tower.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvla_core.errors import ObservationError
from fastvla_core.models.backbones.vlm.images import ImageRecipe, image_settings
from fastvla_core.models.backbones.vlm.interface import (
    BackboneOutput,
    ImageTokens,
    PrefixEmbeds,
    TextTokens,
)
from fastvla_core.models.backbones.vlm.parts import NetworkParts
from fastvla_core.models.backbones.vlm.text import (
    Prompt,
    PromptTokens,
    VLMTokenizer,
    tokenize_prompts,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What a vision tower and its projector made of images.

    Attributes:
        tokens_mnd: In the language model's space.
        deepstack: Further features [m, n, d] for the first language layers.
    """

    tokens_mnd: Tensor
    deepstack: tuple[Tensor, ...] = ()


class TransformersBackbone(NetworkParts):
    """Images, prompts and the language model.

    Attributes of a family, beside those of `NetworkParts`:
        prompt: The text around cameras and words.
        notice: Said when it is loaded.
        first_position: Position of the first token.
    """

    prompt: Prompt
    notice: ClassVar[str] = ""
    first_position: ClassVar[int] = 0

    def __init__(self, network: Any, *, folder: Path, origin: str) -> None:
        super().__init__(network, folder=folder, origin=origin)
        self.tokenizer = VLMTokenizer.load(folder)
        self.recipe: ImageRecipe = self.image_recipe(image_settings(folder))
        if self.notice:
            _log.warning("%s: %s", folder, self.notice)

    # What a family may say otherwise.

    @property
    def extra_tokens(self) -> int:
        """Tokens of a camera that stand for no place in the image."""
        return 0

    def image_recipe(self, settings: Mapping[str, Any]) -> ImageRecipe:
        """How images are prepared; `settings` are those of preprocessor_config.json."""
        raise NotImplementedError

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens that a prepared image [height, width] becomes."""
        raise NotImplementedError

    def encode_pixels(self, pixels_m3hw: Tensor) -> EncodedImages:
        """Vision tower and projector over prepared images."""
        tokens = self.network.model.get_image_features(pixels_m3hw, return_dict=True).pooler_output
        return EncodedImages(tokens if isinstance(tokens, Tensor) else torch.stack(tuple(tokens)))

    def positions(
        self, tokens: PromptTokens, visible_bp: Tensor, images: ImageTokens | None
    ) -> Tensor:
        """Position ids [b, p], or [3, b, p]."""
        return visible_bp.long().cumsum(1).sub(1).clamp_min(0) + self.first_position

    def language_inputs(self, prefix: PrefixEmbeds) -> dict[str, Any]:
        """Further arguments of the network's forward."""
        return {}

    def generation_inputs(self, tokens: PromptTokens, images: ImageTokens | None) -> dict[str, Any]:
        """Further arguments of the network's `generate`."""
        return {}

    def image_outputs(self, images: ImageTokens) -> Any:
        """Encoded images as the network's own `get_image_features` returns them."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        tokens_mnd = images.tokens_bcnd.flatten(0, 1)
        return BaseModelOutputWithPooling(pooler_output=self.pooled(tokens_mnd))

    def pooled(self, tokens_mnd: Tensor) -> Any:
        """A family's way of handing over tokens: one tensor, or one per image."""
        return tokens_mnd

    def run_language(self, prefix: PrefixEmbeds, **asked: Any) -> Any:
        """The language model over a prefix; `asked` are Transformers' output flags and cache."""
        return self.network.model(
            inputs_embeds=prefix.embeds_bpd,
            attention_mask=prefix.mask_bp.long(),
            position_ids=prefix.position_ids,
            **self.language_inputs(prefix),
            **asked,
        )

    # The interface.

    @property
    def pad_id(self) -> int:
        """Any id that the vocabulary has serves as padding: it is masked."""
        found = getattr(self.text_config, "pad_token_id", None)
        return found if isinstance(found, int) and found >= 0 else 0

    def num_image_tokens(self, height: int, width: int) -> int:
        """Tokens n of a camera of this size."""
        rows, columns = self.token_grid(*self.recipe.size_of(height, width))
        return rows * columns + self.extra_tokens

    def encode_images(
        self, pixels_bc3hw: Tensor, *, image_mask_bc: Tensor | None = None
    ) -> ImageTokens:
        """See `VLMBackbone.encode_images`."""
        _check_pixels(pixels_bc3hw, image_mask_bc)
        b, c, _, height, width = pixels_bc3hw.shape
        pixels = pixels_bc3hw.to(self.device)
        mask = torch.ones(b, c, dtype=torch.bool) if image_mask_bc is None else image_mask_bc.bool()
        mask = mask.to(self.device)
        shown = mask[:, :, None, None]
        # Nothing of a missing camera may get through, not even what is no number.
        pixels = torch.where(shown[..., None], pixels, torch.zeros_like(pixels))
        prepared = self.recipe(pixels.flatten(0, 1))
        encoded = self.encode_pixels(prepared.to(self.network.dtype))
        kept = [
            part.unflatten(0, (b, c)).masked_fill(~shown, 0)
            for part in (encoded.tokens_mnd, *encoded.deepstack)
        ]
        grid = self.token_grid(*self.recipe.size_of(height, width))
        return ImageTokens(tokens_bcnd=kept[0], mask_bc=mask, grid=grid, deepstack=tuple(kept[1:]))

    def encode_text(self, texts: Sequence[str] | Tensor) -> TextTokens:
        """See `VLMBackbone.encode_text`."""
        if isinstance(texts, Tensor):
            ids, mask = texts, torch.ones_like(texts, dtype=torch.bool)
        else:
            rows = [self.tokenizer.encode(text) for text in texts]
            width = max(map(len, rows), default=0)
            ids = torch.tensor([row + [self.pad_id] * (width - len(row)) for row in rows])
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(width) < lengths[:, None]
        ids, mask = ids.to(self.device).long(), mask.to(self.device)
        return TextTokens(ids_bl=ids, embeds_bld=self.embeddings(ids), mask_bl=mask)

    def embed(
        self,
        images: ImageTokens | None,
        texts: Sequence[str],
        *,
        answers: Sequence[str] | None = None,
    ) -> PrefixEmbeds:
        """See `VLMBackbone.embed`."""
        tokens = self.tokenized(images, texts, answers=answers)
        cameras = 0 if images is None else images.tokens_bcnd.shape[1]
        spans = tokens.image_spans(cameras)
        visible = _visible(tokens, images).to(self.device)
        ids, answered = tokens.ids_bp.to(self.device), tokens.answer_bp.to(self.device)
        # The placeholder may lie outside the vocabulary.
        embeds = self.embeddings(ids.masked_fill(tokens.image_bp.to(self.device), 0))
        if images is not None:
            embeds = embeds.clone()
            for camera, span in enumerate(spans):
                embeds[:, span] = images.tokens_bcnd[:, camera].to(embeds.dtype)
        positions = self.positions(tokens, visible, images).to(self.device)
        last = positions.masked_fill(~visible, -1).amax(-1)
        return PrefixEmbeds(
            embeds_bpd=embeds,
            ids_bp=ids,
            mask_bp=visible,
            position_ids=positions,
            next_position_b=(last if last.ndim == 1 else last.amax(0)) + 1,
            image_spans=spans,
            answer_bp=answered,
            deepstack=() if images is None else images.deepstack,
            labels=self.labels(ids, answered, answers),
        )

    def labels(
        self, ids_bp: Tensor, answer_bp: Tensor, answers: Sequence[str] | None
    ) -> Tensor | None:
        """What `forward(labels=...)` takes, where there are answers."""
        return None if answers is None else ids_bp.masked_fill(~answer_bp, -100)

    def tokenized(
        self,
        images: ImageTokens | None,
        texts: Sequence[str],
        *,
        answers: Sequence[str] | None = None,
        pad_left: bool = False,
    ) -> PromptTokens:
        """The prompts as ids, with a place for each image token.

        Raises:
            ObservationError: the numbers of rows differ, or a text holds a camera's placeholder.
        """
        rows = None if images is None else len(images.tokens_bcnd)
        if not texts or rows not in (None, len(texts)) or len(answers or texts) != len(texts):
            raise ObservationError(
                f"{len(texts)} instructions for {rows} rows of images"
                + ("" if answers is None else f" and {len(answers)} answers"),
                mend="give one instruction (and answer) per row",
            )
        return tokenize_prompts(
            self.tokenizer,
            self.prompt,
            texts,
            answers=answers,
            cameras=0 if images is None else images.tokens_bcnd.shape[1],
            tokens_per_camera=0 if images is None else images.tokens_bcnd.shape[2],
            pad_id=self.pad_id,
            pad_left=pad_left,
        )

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
        cache: Any = None
        if with_key_values:
            from transformers import DynamicCache

            # Without a config it keeps whole layers where a family attends to a window only.
            cache = DynamicCache()
        output = self.run_language(
            prefix,
            output_hidden_states=bool(chosen),
            past_key_values=cache,
            use_cache=with_key_values,
            return_dict=True,
        )
        last = output.last_hidden_state
        return BackboneOutput(
            # The first of Transformers' hidden states is the input of the first layer.
            hidden_states=tuple(output.hidden_states[layer + 1] for layer in chosen),
            last_hidden_bpd=last,
            key_values=tuple((cache.layers[i].keys, cache.layers[i].values) for i in chosen)
            if with_key_values
            else None,
            loss=None if labels is None else self.loss(last, labels),
        )

    def chosen_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """Layers counted from 0.

        Raises:
            ObservationError: there is no such layer.
        """
        count = self.language_shape.layers
        asked = range(count) if layers is None else layers
        if any(not -count <= layer < count for layer in asked):
            raise ObservationError(
                f"layers {list(asked)} of a backbone that has {count}",
                mend=f"choose from 0 to {count - 1}",
            )
        return tuple(layer % count for layer in asked)

    def loss(self, hidden_bpd: Tensor, labels_bp: Tensor) -> Tensor:
        """Mean cross-entropy of each labelled token, given those before it."""
        targets = labels_bp[:, 1:]
        counted = targets != -100
        # The vocabulary is large: only where a label is.
        logits = self.logits(hidden_bpd[:, :-1][counted])
        return F.cross_entropy(logits.float(), targets[counted])

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary."""
        logits = self.network.lm_head(hidden)
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def rotary(self, positions_bt: Tensor, *, layer: int) -> tuple[Tensor, Tensor] | None:
        """See `VLMBackbone.rotary`."""
        (layer,) = self.chosen_layers([layer])
        like = next(self.embeddings.parameters())
        kinds = getattr(self.text_config, "layer_types", None)
        rotary = self.language_model.rotary_emb
        by_kind = (
            ()
            if kinds is None or not hasattr(rotary, f"{kinds[layer]}_inv_freq")
            else (kinds[layer],)
        )
        cosine, sine = rotary(like, self.rotary_positions(positions_bt), *by_kind)
        return cosine, sine

    def rotary_positions(self, positions_bt: Tensor) -> Tensor:
        """Positions in the form that the family's rotary embedding takes."""
        return positions_bt

    def generate(
        self,
        pixels_bc3hw: Tensor | None,
        texts: Sequence[str],
        *,
        max_new_tokens: int,
        image_mask_bc: Tensor | None = None,
    ) -> list[str]:
        """See `VLMBackbone.generate`."""
        with torch.inference_mode():
            images = None
            if pixels_bc3hw is not None:
                images = self.encode_images(pixels_bc3hw, image_mask_bc=image_mask_bc)
            tokens = self.tokenized(images, texts, pad_left=True)
            ids = tokens.ids_bp.to(self.device)
            encoded = {} if images is None else {"image": self.image_outputs(images)}
            found = self.network.generate(
                input_ids=ids,
                attention_mask=_visible(tokens, images).long().to(self.device),
                mm_encoder_outputs=encoded,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.pad_id,
                **self.generation_inputs(tokens, images),
            )
        return [self.tokenizer.decode(row.tolist()) for row in self.new_tokens(found, ids)]

    def new_tokens(self, found_bt: Tensor, prompt_bp: Tensor) -> Tensor:
        """What was generated, without the prompt."""
        return found_bt[:, prompt_bp.shape[1] :]


def _visible(tokens: PromptTokens, images: ImageTokens | None) -> Tensor:
    return tokens.real_bp if images is None else tokens.visible(images.mask_bc)


def _check_pixels(pixels_bc3hw: Tensor, mask_bc: Tensor | None) -> None:
    shape = tuple(pixels_bc3hw.shape)
    typed = pixels_bc3hw.dtype == torch.uint8 or pixels_bc3hw.is_floating_point()
    if pixels_bc3hw.ndim != 5 or shape[2] != 3 or not pixels_bc3hw.numel() or not typed:
        raise ObservationError(
            f"images are {pixels_bc3hw.dtype} {shape}",
            mend="give [batch, cameras, 3, height, width], uint8 or floating in [0, 1]",
        )
    if mask_bc is not None and tuple(mask_bc.shape) != shape[:2]:
        raise ObservationError(
            f"the mask of images {shape} is {tuple(mask_bc.shape)}",
            mend="give one truth value per camera: [batch, cameras]",
        )
