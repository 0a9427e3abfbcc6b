"""The network: a vision-language backbone is read once, a head turns that into a chunk.

Shapes: b batch, c cameras, p prefix tokens, t action steps, a action dimensions, w backbone width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.layers.attention import AttentionShape, KeyValue
from fastvla_core.layers.rope import RopeTable
from fastvla_core.models.adapters import adapted_layers
from fastvla_core.models.backbones.fusion import CrossFusion
from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import PrefixEmbeds
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.models.heads.interface import (
    ActionHead,
    ActionSizes,
    BackboneOffer,
    Batch,
    Context,
)
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer
from fastvla_core.models.policies.vla.config import VLAConfig, head_options
from fastvla_core.models.registry import ACTION_HEADS


class VLA(nn.Module):
    """Backbone, fusion and head.

    A batch holds
        images: float [b, c, 3, height, width] in [-1, 1], RGB, cameras in the config's order.
        image_mask: bool [b, c], False where a camera is missing; its pixels are then ignored.
        texts: One instruction per row.
        state: float32 [b, S], normalised.
        action: float32 [b, t, a], normalised (relative) targets; for `loss` only.

    Args:
        backbone: Built or loaded already.
        action_tokenizer: For the head or the auxiliary head "fast".
    Raises:
        CheckpointError: the parts do not go together; says why.
    """

    def __init__(
        self,
        config: VLAConfig,
        *,
        backbone: TransformersBackbone,
        action_tokenizer: FastTokenizer | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.action_tokenizer = action_tokenizer
        fusion = config.fusion_options
        self.fusion = (
            None
            if fusion is None
            else CrossFusion(fusion, width=backbone.embedding_dim, cameras=len(config.cameras))
        )
        self.head = self._head(config.head, "head")
        auxiliary = config.auxiliary_head
        self.auxiliary = None if auxiliary is None else self._head(auxiliary, "auxiliary_head")
        self.freeze()

    def freeze(self) -> None:
        """Exclude from training what the config says."""
        for part in self.config.frozen:
            self.backbone.freeze(part)

    def train(self, mode: bool = True) -> VLA:
        """As any module, but for the backbone: of its dropouts only those of adapters are on."""
        super().train(mode)
        self.backbone.eval()
        for layer in adapted_layers(self.backbone).values():
            layer.lora_dropout.train(mode)
        return self

    @property
    def own_parts(self) -> nn.ModuleDict:
        """Everything but the backbone."""
        parts = {"fusion": self.fusion, "head": self.head, "auxiliary": self.auxiliary}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    @property
    def full_precision(self) -> tuple[str, ...]:
        """Patterns of the layers that quantisation leaves alone."""
        heads = {"head": self.head, "auxiliary": self.auxiliary}
        own = (
            f"{name}.{pattern}"
            for name, head in heads.items()
            if head is not None
            for pattern in head.full_precision
        )
        return (*(f"backbone.network.{p}" for p in self.backbone.full_precision()), *own)

    def compile_parts(self) -> None:
        """Compile the head's layers: the backbone is Transformers' own, and read once per chunk."""
        self.head.compile_layers()

    def prefix(self, batch: Batch) -> PrefixEmbeds:
        """Images and words, as the language model will read them."""
        texts: Sequence[str] = batch["texts"]
        pixels = (batch["images"].float() * 0.5 + 0.5).clamp(0, 1)
        images = self.backbone.encode_images(pixels, image_mask_bc=batch["image_mask"])
        if self.fusion is None:
            return self.backbone.embed(images, texts)
        words = self.backbone.embed(None, texts)
        fused = self.fusion(words.embeds_bpd, images.tokens_bcnd, images.mask_bc)
        return dataclasses.replace(words, embeds_bpd=fused)

    def context(self, batch: Batch, *, heads: Sequence[ActionHead]) -> Context:
        """What the heads read of the observations."""
        prefix = self.prefix(batch)
        wanted = [head.wanted for head in heads]
        layers = sorted({layer for w in wanted for layer in (*w.hidden, *w.key_values)})
        output = self.backbone(
            prefix, layers=layers, with_key_values=any(w.key_values for w in wanted)
        )
        return Context(
            hidden=dict(zip(layers, output.hidden_states)),
            key_values={}
            if output.key_values is None
            else {layer: KeyValue(*own) for layer, own in zip(layers, output.key_values)},
            mask_bp=prefix.mask_bp,
            next_position_b=prefix.next_position_b,
            rotation=self._rotation,
            state_bs=batch["state"],
        )

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The head's loss, and the auxiliary head's.

        Returns:
            loss: scalar with gradient, the sum of both; further tensors of the head.
        """
        heads = [head for head in (self.head, self.auxiliary) if head is not None]
        context = self.context(batch, heads=heads)
        read = context.detached() if self.config.knowledge_insulation else context
        found = self.head.loss(read, batch, generator=generator)
        if self.auxiliary is None:
            return found
        beside = self.auxiliary.loss(context, batch, generator=generator)["loss"]
        return {**found, "loss": found["loss"] + beside, "auxiliary_loss": beside.detach()}

    def forward(
        self, batch: Batch, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Normalised actions, float32 [b, t, a].

        Args:
            continued: What the actions have to agree with, where the head is a flow.
        """
        return self.head.actions(self.context(batch, heads=[self.head]), noise_bta, continued)

    def _rotation(self, positions_bn: Tensor, layer: int) -> RopeTable:
        table = self.backbone.rotary(positions_bn, layer=layer)
        assert table is not None
        # Both halves of a head have the same angles.
        cos, sin = (part[..., : part.shape[-1] // 2][:, None] for part in table)
        return RopeTable(cos, sin)

    def _head(self, data: Any, where: str) -> ActionHead:
        options, config = head_options(data, where), self.config
        return ACTION_HEADS.load(data["type"])(
            options,
            offer=backbone_offer(self.backbone),
            sizes=ActionSizes(
                steps=config.chunk_size,
                action=len(config.action_names),
                state=len(config.state_names),
                max_prefix_steps=config.max_prefix_steps,
            ),
            action_tokenizer=self.action_tokenizer,
        )


def backbone_offer(backbone: TransformersBackbone) -> BackboneOffer:
    """What a backbone has for heads to read."""
    shape = backbone.language_shape
    if not hasattr(backbone.language_model, "rotary_emb"):
        return BackboneOffer(
            width=shape.width,
            depth=shape.layers,
            no_joint=f"{type(backbone).__name__} does not rotate its keys, so a head's tokens "
            "cannot go on behind its own",
        )
    return BackboneOffer(
        width=shape.width,
        depth=shape.layers,
        attention=AttentionShape(
            heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim
        ),
    )
