"""Knowledge insulation: a backbone learns from discrete actions, its expert from the flow.

The expert reads keys and values of the backbone through which no gradient flows. The backbone
learns from a head that reads the same keys and values and tells the bin of each action; it exists
for training only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.layers.rope import RopeTable, rope_table
from fastvla_core.models.backbones.decoder import rotation
from fastvla_core.models.heads.bins import BinHead, BinOptions
from fastvla_core.models.heads.flow_expert import Batch, FlowExpertModel
from fastvla_core.models.heads.interface import ActionSizes, BackboneOffer, Context
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.vision_tokens.options import ALL_TOKENS
from training.recipe import InsulationTraining


class Insulated(nn.Module):
    """A flow policy's network, and the discrete head beside it.

    Args:
        network: Trained in place.
        seed: Of the head's weights.
    Raises:
        DatasetError: the network is not a flow expert beside a backbone.
    Source: knowledge insulation, arXiv:2505.23705.
    """

    def __init__(self, network: nn.Module, options: InsulationTraining, *, seed: int) -> None:
        super().__init__()
        if not isinstance(network, (FlowVLA, FlowExpertModel)):
            raise DatasetError(
                "training.insulation: this policy has no flow expert beside its backbone",
                mend="leave it out; a composed policy has `knowledge_insulation` in its config",
            )
        self.network = network
        self._weight = options.weight
        offer, sizes = _offer(network)
        self._action = sizes.action
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = BinHead(
                BinOptions(
                    attention="joint",
                    depth=min(options.depth, offer.depth),
                    width=options.width,
                    mlp_width=4 * options.width,
                    blocks=1,
                    bins=options.bins,
                    limit=options.limit,
                ),
                offer=offer,
                sizes=sizes,
            )
        self.head.to(next(network.parameters()).device)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The flow's loss, and the weighted cross-entropy of the bins.

        Returns:
            loss: scalar with gradient. flow_loss, discrete_loss: the two parts, the second before
                its weight.
        """
        network: Any = self.network
        samples = network.flow_samples(batch, generator=generator)
        _, prefix = network.observed(batch, ALL_TOKENS)
        predicted = network.predicted(samples, prefix.detached(), batch)
        flow = network.flow_loss(samples, predicted, batch)["loss"]
        wanted = {"action": batch["action"][..., : self._action]}
        context = self._context(prefix, batch)
        discrete = self.head.loss(context, wanted, generator=generator)["loss"]
        return {
            "loss": flow + self._weight * discrete,
            "flow_loss": flow,
            "discrete_loss": discrete,
        }

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
