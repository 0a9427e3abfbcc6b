"""The network of pi0-FAST.

Shapes: b batch, c cameras, l language tokens, p tokens so far, k new tokens, v vocabulary.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.layers.attention import KeyValue, block_mask
from fastvla_core.models.backbones.decoder import Decoder
from fastvla_core.models.backbones.paligemma import PaliGemma
from fastvla_core.models.backbones.siglip import Siglip
from fastvla_core.models.heads.flow_expert import Batch
from fastvla_core.models.heads.flow_parts import PrefixTokens
from fastvla_core.models.heads.token_decoding import (
    Decoded,
    Draft,
    decode_greedily,
    decode_speculatively,
)
from fastvla_core.models.heads.words import told_by, word_loss
from fastvla_core.models.policies.pi0_fast.config import Pi0FastConfig


class Pi0Fast(nn.Module):
    """PaliGemma; images and prompt see each other, action tokens see what comes before them.

    A batch holds `images`, `image_mask`, `tokens` and `token_mask` as in `FlowExpertModel`, and
    for `loss` `action_tokens` and `action_token_mask`, int64 and bool [b, n].

    Attributes:
        draft: Guesses tokens for single observations; None decodes one token per pass.
        decoded: What the last `forward` took.
    Source: FAST, arXiv:2501.09747.
    """

    full_precision: ClassVar[tuple[str, ...]] = ("paligemma.projector",)

    def __init__(self, config: Pi0FastConfig) -> None:
        super().__init__()
        self.config = config
        self.paligemma = PaliGemma(config.paligemma)
        self.draft: Draft | None = None
        self.decoded: Decoded | None = None

    @property
    def vision_tower(self) -> Siglip:
        """PaliGemma's vision tower."""
        return self.paligemma.vision

    @property
    def language_model(self) -> Decoder:
        """PaliGemma's language model."""
        return self.paligemma.text

    def image_tokens(self, images_bc3hw: Tensor) -> Tensor:
        """Tokens of each image, [b, c, n, w]."""
        return self.paligemma.image_tokens(images_bc3hw)

    def compile_parts(self) -> None:
        """Compile vision tower and language model, each by itself."""
        self.paligemma.vision.compile(dynamic=False)
        self.paligemma.text.compile()

    def prefix_tokens(self, batch: Batch) -> PrefixTokens:
        """[image tokens of each camera, language tokens], one block."""
        images_bcnw = self.image_tokens(batch["images"])
        language = self.paligemma.text.embed(batch["tokens"])
        x = torch.cat([images_bcnw.flatten(1, 2).to(language.dtype), language], dim=1)
        mask_bcn = batch["image_mask"][:, :, None].expand(*images_bcnw.shape[:3])
        mask = torch.cat([mask_bcn.flatten(1, 2), batch["token_mask"]], dim=1)
        return PrefixTokens(x, mask, torch.zeros(x.shape[1], dtype=torch.long, device=x.device))

    def prompt(self, batch: Batch) -> PrefixTokens:
        """The prefix with the token that begins the actions, behind the padding of the prompt."""
        tokens, mask = batch["tokens"], batch["token_mask"]
        bos = tokens.new_full((len(tokens), 1), self.config.words.bos)
        begun = {
            "tokens": torch.cat([tokens, bos], dim=1),
            "token_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
        }
        return self.prefix_tokens({**batch, **begun})

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, float32; the head is the token embedding."""
        return functional.linear(hidden, self.paligemma.text.embed_tokens.weight).float()

    def forward(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """Decode greedily to tokens, int64 [b, max_decoding_steps]; zeros behind the last."""
        words, steps = self.config.words, self.config.max_decoding_steps
        continuation = PaliGemmaContinuation(self, self.prompt(batch))
        if self.draft is None or len(batch["tokens"]) > 1:
            self.decoded = decode_greedily(continuation, steps=steps, end=words.end)
        else:
            self.decoded = decode_speculatively(
                continuation,
                self.draft,
                steps=steps,
                end=words.end,
                width=self.config.draft_width,
            )
        return self.decoded.tokens_bn

    def loss(self, batch: Batch, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Mean cross-entropy of the action tokens behind the first."""
        tokens, mask = batch["action_tokens"], batch["action_token_mask"]
        told = told_by(self.paligemma.text, self.prefix_tokens(batch), tokens, mask)
        # The first one begins the actions; nobody has to guess it.
        logits = self.word_logits(told[:, 1:])
        return {"loss": word_loss(logits, tokens[:, 1:], mask[:, 1:])}


class PaliGemmaContinuation:
    """A prompt that was read, and the tokens behind it; keeps keys and values of all of them."""

    def __init__(self, model: Pi0Fast, tokens: PrefixTokens) -> None:
        self._model = model
        self.hidden_bpw, self.past = model.paligemma.text(
            tokens.x_bpw, tokens.positions_bp, tokens.allowed
        )
        self._mask_bp = tokens.mask_bp
        self.logits_bv = model.word_logits(self.hidden_bpw[:, -1])

    def read(self, tokens_bk: Tensor) -> Tensor:
        """Append tokens; the logits [b, k, v] behind each of them."""
        text, device = self._model.paligemma.text, tokens_bk.device
        new = torch.arange(tokens_bk.shape[1], device=device)
        positions = self._mask_bp.sum(dim=1, keepdim=True) + new
        past_blocks = torch.full((self._mask_bp.shape[1],), -1, device=device)
        self._mask_bp = torch.cat([self._mask_bp, self._mask_bp.new_ones(tokens_bk.shape)], dim=1)
        allowed = block_mask(new, torch.cat([past_blocks, new]), self._mask_bp)
        hidden, self.past = text(text.embed(tokens_bk), positions, allowed, self.past)
        return self._model.word_logits(hidden)

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens."""
        if count:
            self._mask_bp = self._mask_bp[:, :-count]
            self.past = tuple(
                KeyValue(layer.key_bgsd[:, :, :-count], layer.value_bgsd[:, :, :-count])
                for layer in self.past
            )
