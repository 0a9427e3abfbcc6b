"""Where the hand goes next, learnt beside the flow: the pose at which the gripper is next used.

The next second of a motion says little about which of several things it leads to, so that a small
policy takes long to read its instruction at all. The pose at the end of the stretch says nothing
else. One learned query reads it from the prefix, as the expert does; it exists for training only.

Shapes: b batch, k joints of all key poses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.layers.rope import rope_table
from fastvla_core.layers.transformer import TransformerLayer
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.prefix import Batch, Prefix
from fastvla_core.models.seeding import drawn_from
from training.learning_options import KeyPoseTraining


class KeyPoseHead(nn.Module):
    """One query that reads the prefix layer by layer, to key poses [b, k]."""

    def __init__(self, config: FlowVLAConfig, *, numbers: int) -> None:
        super().__init__()
        width = config.expert.width
        self._head_dim = config.attention.head_dim
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.attention, mlp_width=config.expert.mlp_width)
            for _ in range(config.expert.depth)
        )
        self.norm = RMSNorm(width)
        self.out = nn.Linear(width, numbers)

    def forward(self, prefix: Prefix) -> Tensor:
        """Joints in standard deviations."""
        mask_bp = prefix.mask_bp
        x = self.query.expand(len(mask_bp), -1, -1)
        rope = rope_table(
            torch.tensor([prefix.length], device=mask_bp.device), head_dim=self._head_dim
        )
        itself = mask_bp.new_ones(len(mask_bp), 1)
        allowed = torch.cat([mask_bp, itself], dim=1)[:, None, None, :]
        for layer, memory in zip(self.layers, prefix.layers, strict=True):
            x, _ = layer(x, rope, allowed, memory)
        return self.out(self.norm(x))[:, 0].float()


class WithKeyPose(nn.Module):
    """A policy's network, and what tells the key pose beside it.

    A batch also holds `key_pose` [b, k].

    Args:
        network: Trained in place.
        width: Numbers of a step's key poses.
        seed: Of the head's weights.

    Raises:
        DatasetError: the network is of another kind.
    """

    def __init__(
        self, network: nn.Module, options: KeyPoseTraining, *, width: int, seed: int
    ) -> None:
        super().__init__()
        if not isinstance(network, FlowVLA):
            raise DatasetError(
                "training.key_pose: only small flow policies (`policy: nano`) learn from it",
                mend="leave it out",
            )
        self.network = network
        self._options = options
        with drawn_from(seed):
            self.head = KeyPoseHead(network.config, numbers=width)
        self.head.to(next(network.parameters()).device)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The flow's loss, and the weighted mean squared error of the key pose.

        Returns:
            loss: scalar with gradient. flow_loss, key_pose_loss: the two parts, the second before
                its weight.
        """
        network: Any = self.network
        samples = network.flow_samples(batch, generator=generator)
        prefix = network.prefix(batch)
        flow = network.flow_loss(samples, network.predicted(samples, prefix, batch), batch)["loss"]
        pose = (self.head(prefix) - batch["key_pose"]).square().mean()
        return {
            "loss": flow + self._options.weight * pose,
            "flow_loss": flow,
            "key_pose_loss": pose,
        }
