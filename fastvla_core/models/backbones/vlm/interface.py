"""What every vision-language backbone offers: images and words in, hidden states out.

Shapes: b batch, c cameras, h and w pixels, n tokens per camera, l words, p tokens of the prefix
(markers, image tokens and words in the order of the family's prompt, padded at the end), d width
of the language model, k its key/value heads, e their width, t positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Part = Literal["vision", "projector", "language", "all"]
Quantization = Literal["nf4", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters on the linear layers of the chosen parts.

    Attributes:
        rank, alpha, dropout: As in LoRA, arXiv:2106.09685; the change is scaled by alpha / rank.
        parts: Which parts get adapters; all else is frozen.
        targets: Last names of the layers, such as "q_proj"; empty means every linear layer but
            the vocabulary's.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    parts: tuple[Part, ...] = ("language",)
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """The language model's sizes, for heads that attend to its layers.

    Attributes:
        layers: How many; `forward(layers=...)` counts them from 0.
        width: d.
        heads, kv_heads, head_dim: Query heads, key/value heads (k) and their width (e).
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTokens:
    """Encoded cameras.

    Attributes:
        tokens_bcnd: In the language model's space; zero where a camera is missing.
        mask_bc: True where a camera is there.
        grid: Rows and columns that the tokens of a camera stand for, before any pooling.
        deepstack: Further features [b, c, n, d] for the first language layers (Qwen3-VL).
    """

    tokens_bcnd: Tensor
    mask_bc: Tensor
    grid: tuple[int, int]
    deepstack: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokens:
    """Words alone, without the prompt around them.

    Attributes:
        ids_bl, embeds_bld: Padded at the end.
        mask_bl: True for words, False for padding.
    """

    ids_bl: Tensor
    embeds_bld: Tensor
    mask_bl: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixEmbeds:
    """Images and words merged in the order of the family's prompt.

    Attributes:
        embeds_bpd: Input of the first language layer.
        ids_bp: The tokens; image positions hold the family's placeholder.
        mask_bp: True where a token may be attended to: not padding, not of a missing camera.
        position_ids: [b, p], or [3, b, p] for multimodal rotary positions (Qwen). Missing cameras
            and padding take no positions: the result is that of a prompt without them.
        next_position_b: The first position after the prefix.
        image_spans: Where each camera's n tokens are, the same in every row of the batch.
        answer_bp: True for the tokens of `answers`; these are attended to causally everywhere.
        deepstack: As `ImageTokens.deepstack`.
        labels: For `forward(labels=...)`, where answers were given: the answers' ids, -100
            elsewhere. [b, p]; Florence-2: [b, l], for its decoder.
    """

    embeds_bpd: Tensor
    ids_bp: Tensor
    mask_bp: Tensor
    position_ids: Tensor
    next_position_b: Tensor
    image_spans: tuple[slice, ...]
    answer_bp: Tensor
    deepstack: tuple[Tensor, ...] = ()
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneOutput:
    """What the language model made of a prefix.

    Attributes:
        hidden_states: [b, p, d] behind each chosen layer, in the order of `layers`; behind the
            last layer it is normalised, as in Transformers.
        last_hidden_bpd: Behind the last layer, normalised.
        key_values: Keys (rotated) and values [b, k, p, e] of each chosen layer, where asked for.
        loss: Mean cross-entropy of the labels, where they were given.
    """

    hidden_states: tuple[Tensor, ...]
    last_hidden_bpd: Tensor
    key_values: tuple[tuple[Tensor, Tensor], ...] | None = None
    loss: Tensor | None = None


class VLMBackbone(nn.Module, ABC):
    """A vision-language model that a policy stands on."""

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width d of the language model, of image tokens and of hidden states."""

    @property
    @abstractmethod
    def language_shape(self) -> LanguageShape:
        """The language model's sizes."""

    @abstractmethod
    def num_image_tokens(self, height: int, width: int) -> int:
        """Tokens n that a camera of this size becomes."""

    @abstractmethod
    def encode_images(
        self, pixels_bc3hw: Tensor, *, image_mask_bc: Tensor | None = None
    ) -> ImageTokens:
        """Resize, normalise and encode the cameras.

        Args:
            pixels_bc3hw: RGB, uint8, or floating in [0, 1].
            image_mask_bc: False where a camera is missing; None means that all are there.
        Raises:
            ObservationError: the shapes or the type are not these.
        """

    @abstractmethod
    def encode_text(self, texts: Sequence[str] | Tensor) -> TextTokens:
        """Embed words, or token ids [b, l], without the prompt around them."""

    @abstractmethod
    def embed(
        self,
        images: ImageTokens | None,
        texts: Sequence[str],
        *,
        answers: Sequence[str] | None = None,
    ) -> PrefixEmbeds:
        """Merge cameras and words as the family's prompt orders them.

        Args:
            images: From `encode_images`; None for words alone.
            texts: One instruction per row.
            answers: What the model should say, for the language loss.
        Raises:
            ObservationError: as many texts as rows are needed; or a text holds the family's
                placeholder of an image.
        """

    @abstractmethod
    def forward(
        self,
        prefix: PrefixEmbeds,
        *,
        layers: Sequence[int] | None = None,
        with_key_values: bool = False,
        labels: Tensor | None = None,
    ) -> BackboneOutput:
        """Run the language model over a prefix.

        Args:
            layers: Whose hidden states (and keys and values) to return, counted from 0, negative
                ones from the end; None means all.
            labels: `prefix.labels`, to get the loss.
        """

    @abstractmethod
    def rotary(self, positions_bt: Tensor, *, layer: int) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine [b, t, e] with which `layer` rotates queries and keys (halves).

        None where the family does not rotate (Florence-2).
        """

    @abstractmethod
    def generate(
        self,
        pixels_bc3hw: Tensor | None,
        texts: Sequence[str],
        *,
        max_new_tokens: int,
        image_mask_bc: Tensor | None = None,
    ) -> list[str]:
        """The most likely continuation of each prompt (greedy), without special tokens."""

    @abstractmethod
    def parameters_of(self, part: Part) -> Iterator[nn.Parameter]:
        """The weights of a part (quantised ones are not among them); "all" is everything."""

    def freeze(self, part: Part = "all") -> None:
        """Exclude a part from training."""
        for parameter in self.parameters_of(part):
            parameter.requires_grad_(False)

    def unfreeze(self, part: Part = "all") -> None:
        """Train a part; quantised weights stay as they are."""
        for parameter in self.parameters_of(part):
            parameter.requires_grad_(True)

    @abstractmethod
    def num_parameters(self, part: Part = "all") -> int:
        """Weights of a part, shared ones counted once, quantised ones as many as they stand for."""

    @abstractmethod
    def merge_lora(self) -> None:
        """Add the adapters to the weights they belong to, and drop them.

        Raises:
            QuantError: the weights are quantised: load the adapter on the full-precision backbone.
        """

    @abstractmethod
    def save_pretrained(self, folder: Path) -> None:
        """Write what `from_pretrained` and Transformers load; with LoRA, the adapter alone."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        *,
        quantization: Quantization | None = None,
        lora: LoraOptions | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> VLMBackbone:
        """Load a folder, a registered name ("qwen2.5-vl-3b") or a Hub repository.

        Args:
            quantization: How to store the large linear layers; None as the checkpoint has them.
            lora: Freeze everything and add adapters to train.
            dtype: Of weights at full precision; None as the checkpoint has them.
        Raises:
            CheckpointError: it is missing, damaged, a pickle, or of an unknown family.
            DependencyError: Transformers (or peft, or timm) is not installed.
        """
        from fastvla_core.models.backbones.vlm.loading import load_backbone

        return load_backbone(
            path_or_name, quantization=quantization, lora=lora, dtype=dtype, device=device
        )

    @classmethod
    def from_config(
        cls,
        path_or_name: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> VLMBackbone:
        """Build the network that FOLDER/config.json describes, with random weights.

        The folder holds the tokenizer's files too. Raises as `from_pretrained`.
        """
        from fastvla_core.models.backbones.vlm.loading import build_backbone

        return build_backbone(path_or_name, dtype=dtype, device=device)
