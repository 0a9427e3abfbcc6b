"""What flows through a policy's processors: a batch of observations, and actions where known.

Shapes: b batch, t action steps, a action dimensions, s state dimensions, l tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A batch on its way between robot and network.

    Attributes:
        images: Camera feature keys to uint8 [b, H, W, 3]; a camera that no sample has is absent.
        image_masks: Camera feature keys to bool [b], False where the image is to be ignored.
        state: [b, s].
        action: [b, t, a].
        tasks: One instruction or prompt per sample.
        tokens, token_mask: int64 and bool [b, l], of the prompt.
        action_tokens, action_token_mask: int64 and bool, of the action.
        earlier: What was observed before, oldest first, for networks that read several moments.
    """

    images: Mapping[str, Tensor] = field(default_factory=dict)
    image_masks: Mapping[str, Tensor] = field(default_factory=dict)
    state: Tensor | None = None
    action: Tensor | None = None
    tasks: tuple[str, ...] = ()
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    action_tokens: Tensor | None = None
    action_token_mask: Tensor | None = None
    earlier: tuple[Transition, ...] = ()


class Step(Protocol):
    """One transform of a processor."""

    def __call__(self, transition: Transition) -> Transition: ...


def run_steps(steps: tuple[Step, ...], transition: Transition) -> Transition:
    """Apply the steps in their order."""
    for step in steps:
        transition = step(transition)
    return transition
