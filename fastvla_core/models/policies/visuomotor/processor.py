"""Observations of one or several moments to a network's batch; there are no words to read.

Shapes: b batch, c cameras, t action steps, a action dimensions, s state dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.lerobot.transition import Transition
from fastvla_core.types import Observation

T = TypeVar("T")


class VisuomotorProcessor(LeRobotProcessor):
    """For networks that see one moment."""

    also_reads: ClassVar[frozenset[str]] = frozenset({"action_is_pad"})

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Nothing: these policies know one task, whatever it is called."""
        return {}

    def training_batch(
        self,
        *,
        images: Mapping[str, Tensor],
        image_mask: Tensor,
        state: Tensor,
        actions: Tensor,
        tasks: Sequence[str],
        device: torch.device,
        action_is_pad: Tensor | None = None,
        earlier: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Tensor]:
        """The batch for the network's `loss`; see `LeRobotProcessor.training_batch`.

        Args:
            action_is_pad: bool [b, t], True for actions that were only repeated.
            earlier: `images`, `image_mask` and `state` of the moments before, oldest first.
        """
        newest = self.raw_transition(
            images=images, image_mask=image_mask, state=state, actions=actions, tasks=tasks
        )
        before = (self.raw_transition(**past, actions=None, tasks=tasks) for past in earlier)
        transition = dataclasses.replace(newest, earlier=tuple(before))
        batch = self.model_batch(transition, device=device)
        if action_is_pad is not None:
            batch["action_is_pad"] = action_is_pad.to(device)
        return batch


class HistoryProcessor(VisuomotorProcessor):
    """For networks that see several moments: everything but the action is [b, moments, ...].

    Where less was observed before than the network reads, as at the start of a goal, the oldest
    moment stands for those before it.
    """

    also_reads = frozenset({"action_is_pad", "earlier"})

    def model_batch(self, transition: Transition, *, device: torch.device) -> dict[str, Tensor]:
        """The network's batch of raw values, oldest moment first.

        Raises:
            ObservationError: a value is missing or has a wrong size.
        """
        moments = _filled([*transition.earlier, transition], 1 + self.config.past_steps)
        batches = [super(HistoryProcessor, self).model_batch(m, device=device) for m in moments]
        newest = batches[-1]
        return {
            name: tensor if name == "action" else torch.stack([b[name] for b in batches], dim=1)
            for name, tensor in newest.items()
        }

    def transition(self, observations: Sequence[Observation]) -> Transition:
        """Raw values of observations and of those before them.

        Raises:
            ObservationError: see `observation_batch`.
        """
        count = 1 + self.config.past_steps
        rows = [_filled([*o.earlier, o], count) for o in observations]
        read = super().transition
        moments = [read([row[index] for row in rows]) for index in range(count)]
        return dataclasses.replace(moments[-1], earlier=tuple(moments[:-1]))


def _filled(moments: list[T], count: int) -> list[T]:
    """The last `count` of them, the oldest repeated in front where there are fewer."""
    newest = moments[-count:]
    return [newest[0]] * (count - len(newest)) + newest
