"""Where the hand goes next, learnt beside the flow or before it: where the gripper is next used.

The next second of a motion says little about which of several things it leads to, so that a small
policy takes long to read its instruction at all. The pose at the end of the stretch says nothing
else. What tells it is for training only, and looks at nothing but the picture's tokens, through the
points that stand out in them: so the stem itself must learn which thing the words mean. Told from
the whole prefix by a learned query, as it was before, the words came far later (`LOG.md`).

Shapes: b batch, p prefix tokens, w their width, k joints of all key poses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.models.backbones.image_points import Pointer
from fastvla_core.models.backbones.text import AttentionPool
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.prefix import Batch, PrefixEncoder
from fastvla_core.models.seeding import drawn_from
from training.learning_options import KeyPoseTraining

_POINTS = 16
_WORDS = 128
# What the pose alone teaches: the rest of the network it does not touch.
_SEEING = ("prefix.text.", "prefix.vision.", "prefix.pool.", "prefix.pointer.")


class KeyPoseHead(nn.Module):
    """What points at something in the pictures, the words and the state, to key poses [b, k]."""

    def __init__(self, config: FlowVLAConfig, prefix: PrefixEncoder, *, numbers: int) -> None:
        super().__init__()
        width = config.prefix.width
        # What steers the stem knows what was said; where nothing does, the head listens itself.
        steered = prefix.vision.condition_width
        self.words: Any = None if steered else AttentionPool(width, _WORDS)
        # The policy's own, where it has one.
        pointer = prefix.pointer or Pointer(
            width,
            prefix.vision.token_grid,
            cameras=len(config.cameras),
            points=_POINTS,
            said=steered or _WORDS,
            state=len(config.state_names),
        )
        self.pointer: Any = None if prefix.pointer else pointer
        self.out = nn.Linear(pointer.out_width, numbers)

    def forward(self, embedded: Tensor, batch: Batch, prefix: PrefixEncoder) -> Tensor:
        """Joints in standard deviations.

        Args:
            embedded: What `prefix.embed` gives for the batch, [b, p, w].
        """
        language_mask = batch["token_mask"]
        words = embedded[:, -1 - language_mask.shape[1] : -1]
        images = embedded[:, : -1 - language_mask.shape[1]]
        said = (prefix.pool or self.words)(words, language_mask)
        pointer = prefix.pointer or self.pointer
        return self.out(pointer(images, batch["image_mask"], said, batch["state"]))


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
            self.head = KeyPoseHead(network.config, network.prefix, numbers=width)
        self.head.to(next(network.parameters()).device)
        if options.alone:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(_SEEING))

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The flow's loss, and the weighted mean squared error of the key pose.

        Returns:
            loss: scalar with gradient. flow_loss, key_pose_loss: the two parts, the second before
                its weight; the first is missing where the pose is learnt alone.
        """
        network: Any = self.network
        embedded, mask = network.prefix.embed(batch)
        pose = (self.head(embedded, batch, network.prefix) - batch["key_pose"]).square().mean()
        weighted = self._options.weight * pose
        if self._options.alone:
            return {"loss": weighted, "key_pose_loss": pose}
        prefix = network.prefix.read(embedded, mask)
        samples = network.flow_samples(batch, generator=generator)
        flow = network.flow_loss(samples, network.predicted(samples, prefix, batch), batch)["loss"]
        return {"loss": flow + weighted, "flow_loss": flow, "key_pose_loss": pose}
