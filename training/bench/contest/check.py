"""Right before fast: a contender's actions against those of the float32 reference.

Shapes: n inputs, t action steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Motion = Callable[[Tensor], Tensor]
# Smallest cosine of a contender's actions and the reference's, by what its weights are stored in.
# Random weights lose more to four bits than trained ones.
SMALLEST_COSINE = {"fp32": 0.9999, "bf16": 0.99, "int8": 0.99, "nf4": 0.9}
# What 4 bits are asked for; a contender between both is timed, and the report says so.
NF4_GOAL = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a contender is from the reference, at its worst input.

    Attributes:
        worst_cosine: Smallest cosine of two chunks of actions.
        worst_flow_cosine: The same for what the network made of the noise, action minus noise: a
            network that did nothing would have a fair `worst_cosine`.
        worst_motion_cosine: The same for the robot's motion, in its units and away from where it
            is; None for random weights, which know no robot.
        max_error: Largest difference of two normalised actions.
        inputs: How many were compared.
    """

    worst_cosine: float
    worst_flow_cosine: float
    max_error: float
    inputs: int
    worst_motion_cosine: float | None = None

    def refusal(self, weights: str) -> str:
        """Why a contender with such weights is not timed; empty when it is."""
        limit = SMALLEST_COSINE[weights]
        if self.worst_cosine >= limit:
            return ""
        return (
            f"wrong actions: cosine {self.worst_cosine:.4f} with the float32 reference, "
            f"{limit} is asked of {weights}"
        )


def agreement(
    actions_nta: Tensor, reference_nta: Tensor, noise_nta: Tensor, motion: Motion | None = None
) -> Agreement:
    """Compare all chunks; one that is not finite or of another shape agrees with nothing.

    Args:
        noise_nta: What the flow started from; dimensions beyond the actions' are left out.
        motion: Makes motion of normalised actions, where a robot is known.
    """
    count = len(reference_nta)
    if actions_nta.shape != reference_nta.shape or not bool(torch.isfinite(actions_nta).all()):
        return Agreement(worst_cosine=-1.0, worst_flow_cosine=-1.0, max_error=1e9, inputs=count)
    noise = noise_nta[..., : reference_nta.shape[-1]]
    return Agreement(
        worst_cosine=_worst_cosine(actions_nta, reference_nta),
        worst_flow_cosine=_worst_cosine(actions_nta - noise, reference_nta - noise),
        max_error=float((actions_nta - reference_nta).abs().max()),
        inputs=count,
        worst_motion_cosine=None
        if motion is None
        else _worst_cosine(motion(actions_nta), motion(reference_nta)),
    )


def _worst_cosine(a_nta: Tensor, b_nta: Tensor) -> float:
    a, b = (x.double().flatten(1) for x in (a_nta, b_nta))
    norms = a.norm(dim=1) * b.norm(dim=1)
    return float(((a * b).sum(dim=1) / norms.clamp_min(1e-12)).min())
