"""Flow policies that continue what is planned already: real-time chunking, whatever the network.

Each function here takes the velocity of a flow and gives another one, for the same integration;
time 1 is noise, time 0 is data. Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fastvla_core.types import Conditioning

Velocity: TypeAlias = Callable[[Tensor, float | Tensor], Tensor]
"""Called with points [b, t, a] and their time: one number, or one per row [b, t]."""

MAX_GUIDANCE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPrefix:
    """What the rows of a batch of chunks have to agree with, in the frame of the network.

    Attributes:
        actions_bta: float32, normalised; rows that nothing is planned for hold any finite value.
        frozen_b: int64, the first rows that cannot change any more.
        planned_b: int64, the first rows that anything is planned for, the frozen ones included; 0
            for a chunk that is free.
        conditioning: See `ChunkPrefix`.
    """

    actions_bta: Tensor
    frozen_b: Tensor
    planned_b: Tensor
    conditioning: Conditioning

    def conditioned(self, velocity: Velocity) -> Velocity:
        """The velocity of a flow that ends in chunks which agree with this prefix."""
        if self.conditioning == "inpaint":
            weights_bt = prefix_weights(self.frozen_b, self.planned_b, rows=self._rows)
            return inpainting(velocity, actions_bta=self.actions_bta, weights_bt=weights_bt)
        frozen_bt = frozen_rows(self.frozen_b, rows=self._rows)
        return continuing(velocity, actions_bta=self.actions_bta, frozen_bt=frozen_bt)

    @property
    def _rows(self) -> int:
        return self.actions_bta.shape[1]


def frozen_rows(frozen_b: Tensor, *, rows: int) -> Tensor:
    """True for the first `frozen` rows, bool [b, rows]."""
    return torch.arange(rows, device=frozen_b.device) < frozen_b[:, None]


def prefix_weights(frozen_b: Tensor, planned_b: Tensor, *, rows: int) -> Tensor:
    """How much each row of a new chunk has to agree with the plan, float32 [b, rows].

    1 for the frozen rows, 0 for those that nothing is planned for, and between them
    c (e^c - 1) / (e - 1), where c falls evenly from row to row.

    Source: Real-time chunking, arXiv:2506.07339, equation 5.
    """
    row = torch.arange(rows, device=frozen_b.device)
    frozen, planned = frozen_b[:, None], planned_b[:, None]
    c = ((planned - row) / (planned - frozen + 1)).clamp(0.0, 1.0)
    soft = c * torch.expm1(c) / (math.e - 1)
    return torch.where(row < frozen, 1.0, soft) * (row < planned)


def guidance_weight(time: float, *, limit: float = MAX_GUIDANCE) -> float:
    """How strongly the flow is pulled towards the plan at a time.

    With s = 1 - time, the paper's (1 - s) / (s r^2) where r^2 = (1 - s)^2 / (s^2 + (1 - s)^2), at
    most `limit`: it is infinite at both ends, and a few Euler steps would overshoot.

    Source: arXiv:2506.07339, equation 2; r^2 from PiGDM (Song et al., ICLR 2023).
    """
    signal = 1.0 - time
    scale = time * signal
    return min(limit, (signal**2 + time**2) / scale) if scale > 0 else limit


def inpainting(velocity: Velocity, *, actions_bta: Tensor, weights_bt: Tensor) -> Velocity:
    """Guide a flow towards `actions`, each row as much as its weight says; no training needed.

    At each step the chunk that the present point would lead to is compared with the plan, and the
    weighted difference goes back through the network as a vector-Jacobian product. That takes a
    backward pass per step, so tensors that the velocity closes over must not come from
    `torch.inference_mode`.

    Source: arXiv:2506.07339, equations 2 to 4 and algorithm 1.
    """

    def guided(x_bta: Tensor, time: float | Tensor) -> Tensor:
        assert isinstance(time, float)
        with torch.enable_grad():
            point = x_bta.detach().requires_grad_()
            speed = velocity(point, time)
            expected = point - time * speed
            error = (actions_bta - expected.detach()) * weights_bt[..., None]
            (pull,) = torch.autograd.grad(expected, point, error)
        # The flow runs from time 1 down: what pulls towards the data is subtracted.
        return speed.detach() - guidance_weight(time) * pull

    return guided


def continuing(velocity: Velocity, *, actions_bta: Tensor, frozen_bt: Tensor) -> Velocity:
    """Give the frozen rows to the network as data (time 0); for policies trained on `delayed`.

    Source: Training-time action conditioning, arXiv:2512.05964.
    """
    frozen_bt1 = frozen_bt[..., None]

    def continued(x_bta: Tensor, time: float | Tensor) -> Tensor:
        assert isinstance(time, float)
        time_bt = torch.full(frozen_bt.shape, time, dtype=torch.float64, device=x_bta.device)
        time_bt = time_bt.masked_fill(frozen_bt, 0.0)
        speed = velocity(torch.where(frozen_bt1, actions_bta, x_bta), time_bt)
        # On the straight way to its action, so that a frozen row ends exactly there.
        return torch.where(frozen_bt1, (x_bta - actions_bta) / time, speed)

    return continued


def draw_delays(rows: int, *, longest: int, generator: torch.Generator) -> Tensor:
    """How many rows of each training sample are frozen: even from 0 to `longest`, int64 [rows]."""
    device = generator.device
    return torch.randint(0, longest + 1, (rows,), generator=generator, device=device)
