"""The network behind a backbone: its parts, their weights, adapters, and its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from fastvla_core.models.backbones.vlm import lora as adapters
from fastvla_core.models.backbones.vlm.interface import (
    LanguageShape,
    LoraOptions,
    Part,
    VLMBackbone,
)
from fastvla_core.models.backbones.vlm.saving import save_backbone
from fastvla_core.quant import QuantizedLinear, quantized_layers


class NetworkParts(VLMBackbone):
    """A network of Transformers, and which of its modules do what.

    Attributes of a family:
        network_class: Name in Transformers.
        part_names: Dotted names below the network that make up each part.

    Attributes:
        network: The Transformers model, its language-model head included.
        folder: Where its files came from.
        origin: That folder, or the Hub name it stands for.
    """

    network_class: ClassVar[str]
    part_names: ClassVar[Mapping[Part, tuple[str, ...]]] = {
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    }

    def __init__(self, network: Any, *, folder: Path, origin: str) -> None:
        super().__init__()
        self.network = network
        self.folder = folder
        self.origin = origin

    @classmethod
    def full_precision(cls) -> tuple[str, ...]:
        """Patterns of the layers that quantisation leaves alone: projector and vocabulary."""
        return ("lm_head", *(f"{name}*" for name in cls.part_names["projector"]))

    @property
    def language_model(self) -> Any:
        """The stack of language layers."""
        return self.network.model.language_model

    @property
    def text_config(self) -> Any:
        """The language model's part of the config."""
        return self.network.config.get_text_config()

    @property
    def embedding_dim(self) -> int:
        """Width d."""
        return self.language_shape.width

    @property
    def language_shape(self) -> LanguageShape:
        """The language model's sizes."""
        config = self.text_config
        heads, width = config.num_attention_heads, config.hidden_size
        return LanguageShape(
            layers=config.num_hidden_layers,
            width=width,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or width // heads,
        )

    @property
    def embeddings(self) -> nn.Module:
        """Ids to vectors, scaled where the family scales them."""
        return self.network.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.embeddings.parameters()).device

    def parameters_of(self, part: Part) -> Iterator[nn.Parameter]:
        """See `VLMBackbone.parameters_of`."""
        seen: set[int] = set()
        for _, owner in self.named_parts(part):
            found = [owner] if isinstance(owner, nn.Parameter) else owner.parameters()
            for parameter in found:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    def named_parts(self, part: Part) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
        """The modules (and single parameters) of a part, by their names below the network."""
        names = sum(self.part_names.values(), ()) if part == "all" else self.part_names[part]
        for name in names:
            parent, _, child = name.rpartition(".")
            yield name, getattr(self.network.get_submodule(parent), child)

    def num_parameters(self, part: Part = "all") -> int:
        """See `VLMBackbone.num_parameters`."""
        packed = sum(
            layer.in_features * layer.out_features
            for _, owner in self.named_parts(part)
            if isinstance(owner, nn.Module)
            for layer in (
                [owner] if isinstance(owner, QuantizedLinear) else quantized_layers(owner).values()
            )
        )
        return packed + sum(parameter.numel() for parameter in self.parameters_of(part))

    def add_lora(self, options: LoraOptions) -> None:
        """Freeze everything, and add adapters to train.

        Raises:
            CheckpointError: no layer has one of the names asked for.
            DependencyError: peft is not installed.
        """
        parts = [
            name
            for part in options.parts
            for name, owner in self.named_parts(part)
            if isinstance(owner, nn.Module)
        ]
        adapters.add(self.network, options, parts=parts)

    def merge_lora(self) -> None:
        """See `VLMBackbone.merge_lora`."""
        adapters.merge(self.network)

    def save_pretrained(self, folder: Path) -> None:
        """See `VLMBackbone.save_pretrained`."""
        save_backbone(self.network, folder, source=self.folder, origin=self.origin)
