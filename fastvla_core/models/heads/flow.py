"""A flow-matching expert: noise becomes a chunk along a velocity that reads the backbone.

Shapes: b batch, r flow samples, t action steps, a action dimensions, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.time_embedding import time_embedding
from fastvla_core.models.flow_prefix import FlowPrefix, draw_delays, frozen_rows
from fastvla_core.models.heads.interface import (
    ActionHead,
    ActionSizes,
    BackboneOffer,
    Batch,
    Context,
    Wanted,
)
from fastvla_core.models.heads.reader import ActionReader, ReaderOptions, Reading
from fastvla_core.models.policies.flow_vla import flow


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions(ReaderOptions):
    """Options of `FlowHead`.

    Attributes:
        inference_steps: Euler steps from noise to actions.
        samples_per_observation: (time, noise) pairs per training sample: they share its prefix,
            which costs most.
    """

    inference_steps: int = 10
    samples_per_observation: int = 4

    def __post_init__(self) -> None:
        # `super()` without arguments does not find the class that slots made anew.
        ReaderOptions.__post_init__(self)
        if min(self.inference_steps, self.samples_per_observation) < 1:
            raise CheckpointError(
                f"a flow head of {self.inference_steps} inference_steps and "
                f"{self.samples_per_observation} samples_per_observation",
                mend="give numbers above 0",
            )


class FlowHead(ActionHead):
    """Noisy actions and their time to velocities.

    Source: pi0, arXiv:2410.24164.
    """

    options_type = FlowOptions
    is_flow: ClassVar[bool] = True
    full_precision: ClassVar[tuple[str, ...]] = ("reader.state_in", "action_in", "action_out")

    def __init__(
        self,
        options: FlowOptions,
        *,
        offer: BackboneOffer,
        sizes: ActionSizes,
        action_tokenizer: object = None,
    ) -> None:
        super().__init__()
        width = options.width
        self._options, self._sizes = options, sizes
        self.reader = ActionReader(options, offer=offer, state=sizes.state)
        self.action_in = nn.Linear(sizes.action, width)
        self.time_in = nn.Linear(2 * width, width)
        self.time_out = nn.Linear(width, width)
        self.action_out = nn.Linear(width, sizes.action)

    @property
    def wanted(self) -> Wanted:
        """What the reader reads."""
        return self.reader.wanted

    def compile_layers(self) -> None:
        """Compile the reader's layers."""
        self.reader.compile_layers()

    def velocity(
        self, noisy_brta: Tensor, time_brt: Tensor, state_b1d: Tensor, reading: Reading
    ) -> Tensor:
        """Velocities [b, r, t, a], float32; times per sample (t = 1) or per action step.

        The samples of one observation stand side by side, at the same positions, and do not see
        each other.
        """
        samples, steps = noisy_brta.shape[1:3]
        device = noisy_brta.device
        x = torch.cat([state_b1d, self._embed(noisy_brta, time_brt).flatten(1, 2)], dim=1)
        owner = torch.arange(samples, device=device).repeat_interleave(steps)
        owner = torch.cat([owner.new_full((1,), -1), owner])
        # The state sees itself alone, so that it is the same whatever stands behind it.
        own = (owner == owner[:, None]) | (owner == -1)
        positions = torch.arange(1, steps + 1, device=device).repeat(samples)
        positions = torch.cat([positions.new_zeros(1), positions])
        x, _ = self.reader(x, reading, positions_n=positions, own=own[None, None])
        return self.action_out(x[:, 1:]).float().view(noisy_brta.shape)

    def loss(
        self, context: Context, batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity; see `FlowVLA.loss`.

        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        Source of the delays: arXiv:2512.05964.
        """
        action = batch["action"].float()[:, None]
        shape = (len(action), self._options.samples_per_observation)
        time = flow.sample_time(shape, generator=generator).to(action.device)[..., None]
        noise = torch.randn(
            (*shape, *action.shape[2:]), generator=generator, device=generator.device
        ).to(action.device)
        counted = None
        if longest := self._sizes.max_prefix_steps:
            delay = draw_delays(len(action), longest=longest, generator=generator)
            given = frozen_rows(delay.to(action.device), rows=action.shape[2])[:, None]
            time = torch.where(given, 0.0, time)
            counted = ~given[..., None]
        noisy = flow.interpolate(action, noise, time)
        state, reading = self.reader.state_token(context), self.reader.read(context)
        predicted = self.velocity(noisy, time, state, reading)
        error = (predicted - flow.velocity_target(action, noise)).square()
        if counted is not None:
            error = error * (counted / counted.float().mean())
        return {"loss": error.mean(), "loss_per_dim": error.detach().mean(dim=(0, 1, 2))}

    def actions(
        self, context: Context, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Follow the velocity from the noise, float32 [b, t, a]."""
        state, reading = self.reader.state_token(context), self.reader.read(context)

        def velocity(x_bta: Tensor, time: float | Tensor) -> Tensor:
            # In float64: see `time_embedding`.
            times = torch.as_tensor(time, dtype=torch.float64, device=x_bta.device)
            times_brt = times.expand(len(x_bta), -1 if times.ndim else 1)[:, None]
            return self.velocity(x_bta[:, None], times_brt, state, reading)[:, 0]

        followed = velocity if continued is None else continued.conditioned(velocity)
        return flow.integrate(followed, noise_bta.float(), steps=self._options.inference_steps)

    def _embed(self, noisy_brta: Tensor, time_brt: Tensor) -> Tensor:
        action = self.action_in(noisy_brta.to(self.reader.dtype))
        time = time_embedding(time_brt, width=action.shape[-1]).to(action.dtype)
        joined = torch.cat([action, time.expand_as(action)], dim=-1)
        return self.time_out(functional.silu(self.time_in(joined)))
