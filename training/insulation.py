"""Knowledge insulation: a backbone learns from discrete actions, its expert from the flow.

The expert reads keys and values of the backbone through which no gradient flows. The backbone
learns from what reads the same keys and values and tells discrete actions: its own language model,
which writes them as words, or a head that exists for training only.

Shapes: b batch, t action steps, a action dimensions, n tokens.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.layers.rope import RopeTable, rope_table
from fastvla_core.models.backbones.decoder import rotation
from fastvla_core.models.heads.bins import BinHead, BinOptions
from fastvla_core.models.heads.fast import FastHead, FastOptions
from fastvla_core.models.heads.flow_expert import Batch, FlowExpertModel
from fastvla_core.models.heads.interface import ActionSizes, BackboneOffer, Context
from fastvla_core.models.heads.words import behind_each, padded, word_loss
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer, load_fast_tokenizer
from fastvla_core.models.lerobot.files import find_part
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.pi0_fast.config import action_words
from fastvla_core.models.policies.pi0_fast.processor import TokenizeActions
from fastvla_core.models.seeding import drawn_from
from fastvla_core.models.vision_tokens.options import ALL_TOKENS
from fastvla_core.policy import FastVLA
from training.learning_options import InsulationTraining

# Entries at the end of a vocabulary that are not used for actions, as pi0-FAST has it.
_SKIPPED = 128
_TOKENIZER, _FAST_TOKENIZER = "tokenizer", "fast_tokenizer"


class Insulated(nn.Module):
    """A flow policy's network, and what tells discrete actions beside it.

    A batch may hold `action_tokens` and `action_token_mask` [b, n] already; then no tokenizer of
    words is needed.

    Args:
        network: Trained in place.
        seed: Of a head's weights.
        fast, text: The tokenizers of actions and of the language model, for "fast".
    Raises:
        DatasetError: the network is not a flow expert beside a backbone, or its vocabulary has no
            room for actions.
    Source: knowledge insulation, arXiv:2505.23705.
    """

    def __init__(
        self,
        network: nn.Module,
        options: InsulationTraining,
        *,
        seed: int,
        fast: FastTokenizer | None = None,
        text: TextTokenizer | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, (FlowVLA, FlowExpertModel)):
            raise DatasetError(
                "training.insulation: this policy has no flow expert beside its backbone",
                mend="leave it out; a composed policy has `knowledge_insulation` in its config",
            )
        self.network = network
        self._options = options
        self._writing = _writing(options, fast, text)
        with drawn_from(seed):
            self.head = _head(network, options, fast)
        if self.head is not None:
            self.head.to(next(network.parameters()).device)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The flow's loss, and the weighted cross-entropy of the discrete actions.

        Returns:
            loss: scalar with gradient. flow_loss, discrete_loss: the two parts, the second before
                its weight.
        """
        network: Any = self.network
        samples = network.flow_samples(batch, generator=generator)
        _, prefix = network.observed(batch, ALL_TOKENS)
        predicted = network.predicted(samples, prefix.detached(), batch)
        flow = network.flow_loss(samples, predicted, batch)["loss"]
        discrete = self._discrete_loss(prefix, batch, generator)
        return {
            "loss": flow + self._options.weight * discrete,
            "flow_loss": flow,
            "discrete_loss": discrete,
        }

    def _discrete_loss(self, prefix: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        network, head = self.network, self.head
        if isinstance(head, BinHead):
            wanted = {"action": self._actions(batch)}
            return head.loss(self._context(prefix, batch), wanted, generator=generator)["loss"]
        tokens, mask = self._tokens(batch)
        if isinstance(head, FastHead):
            return head.token_loss(self._context(prefix, batch), tokens, mask)
        assert isinstance(network, FlowExpertModel)
        # The first word begins the actions; nobody has to guess it.
        told = behind_each(network.language_model, prefix, tokens[:, :-1])
        return word_loss(network.word_logits(told), tokens[:, 1:], mask[:, 1:])

    def _actions(self, batch: Batch) -> Tensor:
        return batch["action"][..., : _offer(self.network)[1].action]

    def _tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if "action_tokens" in batch:
            return batch["action_tokens"], batch["action_token_mask"]
        actions = self._actions(batch)
        if isinstance(self.head, FastHead):
            return self.head.padded_tokens(actions)
        assert self._writing is not None
        scaled = (actions.float() / self._options.limit).cpu().numpy()
        return padded([self._writing.row(chunk) for chunk in scaled], device=actions.device)

    def _context(self, prefix: Any, batch: Batch) -> Context:
        if isinstance(self.network, FlowVLA):
            behind = torch.full_like(prefix.mask_bp[:, 0], prefix.length, dtype=torch.int64)
        else:
            behind = prefix.length_b1[:, 0]
        return Context(
            hidden={},
            key_values=dict(enumerate(prefix.layers)),
            mask_bp=prefix.mask_bp,
            next_position_b=behind,
            rotation=self._rotation,
            state_bs=batch["state"],
        )

    def _rotation(self, positions_bn: Tensor, layer: int) -> RopeTable:
        network: Any = self.network
        if isinstance(network, FlowVLA):
            # Its tokens have the same positions in every sample.
            return rope_table(positions_bn[0], head_dim=network.config.attention.head_dim)
        return rotation(positions_bn, network.language_model.size)


def insulated(
    policy: FastVLA, options: InsulationTraining, *, seed: int
) -> tuple[Insulated, dict[str, str]]:
    """A policy's network insulated, and the digest of the tokenizer that it learns from.

    Raises:
        DatasetError: see `Insulated`.
        CheckpointError: a tokenizer is missing or damaged.
    """
    if options.tokens == "bins":
        return Insulated(policy.model, options, seed=seed), {}
    fast = action_tokenizer(options)
    known = getattr(policy.processor, "tokenizers", {})
    learner = Insulated(policy.model, options, seed=seed, fast=fast, text=known.get(_TOKENIZER))
    files = sorted(fast.folder.glob("*.json"))
    content = b"".join(file.read_bytes() for file in files)
    return learner, {"action tokenizer": hashlib.sha256(content).hexdigest()}


def action_tokenizer(options: InsulationTraining) -> FastTokenizer:
    """The FAST tokenizer of a recipe.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    found = find_part(
        options.action_tokenizer,
        Path(),
        given=None,
        usual=(_FAST_TOKENIZER,),
        wanted="tokenizer.json",
        source="training.insulation.action_tokenizer",
    )
    return load_fast_tokenizer(found)


def _writing(
    options: InsulationTraining, fast: FastTokenizer | None, text: TextTokenizer | None
) -> TokenizeActions | None:
    """Actions as words of a language model, in the form of pi0-FAST."""
    if fast is None or text is None:
        return None
    words = action_words(text, skip=_SKIPPED)
    if words.last < fast.vocab_size - 1:
        raise DatasetError(
            f"training.insulation: the language model has {text.vocab_size} words, too few for "
            f"the {fast.vocab_size} tokens of actions beside {_SKIPPED} that are left out",
            mend="use a smaller FAST tokenizer, or `tokens: bins`",
        )
    return TokenizeActions(fast=fast, text=text, words=words, length=options.max_tokens)


def _head(
    network: FlowVLA | FlowExpertModel, options: InsulationTraining, fast: FastTokenizer | None
) -> BinHead | FastHead | None:
    """What tells discrete actions; None where the language model writes them."""
    offer, sizes = _offer(network)
    common: dict[str, Any] = {
        "attention": "joint",
        "depth": min(options.depth, offer.depth),
        "width": options.width,
        "mlp_width": 4 * options.width,
        "limit": options.limit,
    }
    if options.tokens == "bins":
        chosen = BinOptions(blocks=1, bins=options.bins, **common)
        return BinHead(chosen, offer=offer, sizes=sizes)
    if isinstance(network, FlowExpertModel):
        return None
    written = FastOptions(
        action_tokenizer=options.action_tokenizer, max_tokens=options.max_tokens, **common
    )
    return FastHead(written, offer=offer, sizes=sizes, action_tokenizer=fast)


def _offer(network: FlowVLA | FlowExpertModel) -> tuple[BackboneOffer, ActionSizes]:
    config: Any = network.config
    if isinstance(network, FlowVLA):
        size, shape = config.prefix, config.attention
        state, action = len(config.state_names), len(config.action_names)
    else:
        size = network.language_model.size
        shape, state, action = size.attention, config.max_state_dim, config.action_dim
    return (
        BackboneOffer(width=size.width, depth=size.depth, attention=shape),
        ActionSizes(steps=config.chunk_size, action=action, state=state),
    )
