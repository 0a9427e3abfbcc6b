"""What rollouts and recordings need of a simulator, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.sim.monitor import Outcome
from fastvla_core.types import Observation

Disturbance: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From what the expert wants to what is executed instead; float64 [A]."""


class EpisodeTask(Protocol):
    """What is to be done in one episode; each simulator has its own kind."""

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        ...


class Environment(Protocol):
    """A simulated robot with one task at a time; belongs to one thread.

    Attributes:
        tick_s: Time that the expert plans for; demonstrations have one observation per tick.
        linger_ticks: Ticks that a demonstration goes on after the task is done.
        drive_ticks: Fewest ticks, and one more than most, that a policy may drive before the expert
            takes over.
    """

    tick_s: float
    linger_ticks: int
    drive_ticks: tuple[int, int]

    def begin(self, task: Any, seed: int) -> None:
        """Lay out the scene of `seed` for a task of this simulator, and `watch`."""
        ...

    def watch(self) -> None:
        """Judge from here on; what was done before does not count, nor the time that it took."""
        ...

    def observe(self) -> Observation:
        """What the policy gets to see now."""
        ...

    def velocities(self) -> NDArray[np.float32] | None:
        """Of the state's columns, float32 [S]; None where the simulator does not tell them."""
        ...

    def step(self, target: NDArray[np.floating], *, duration_s: float) -> None:
        """Move the set point linearly to `target`, float [A], within `duration_s`, and judge."""
        ...

    def expert_target(self) -> NDArray[np.float64]:
        """What the scripted expert would do now for the next tick, float64 [A], absolute."""
        ...

    def disturbance(self, rng: np.random.Generator) -> Disturbance:
        """The shaking of one episode's demonstrator."""
        ...

    def close(self) -> None:
        """Free the OpenGL contexts."""
        ...

    @property
    def outcome(self) -> Outcome:
        """How the episode stands; the first decision stands."""
        ...

    @property
    def is_fulfilled(self) -> bool:
        """Whether a demonstration may end here as a success."""
        ...

    @property
    def horizon(self) -> int:
        """Ticks after which time is up."""
        ...

    @property
    def time_ns(self) -> int:
        """Simulated time [ns]."""
        ...
