"""What an engine is, and what a network has to offer for one.

Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from fastvla_core.engines.names import EngineName

Batch = Mapping[str, Tensor]


class Engine(Protocol):
    """Runs whole requests of one network; one at a time, in inference mode."""

    @property
    def name(self) -> EngineName:
        """Which engine this is."""
        ...

    def prepare(self, batch: Batch, noise_bta: Tensor) -> None:
        """Make ready for requests of these shapes: compile, capture, convert.

        A request of new shapes does the same at its first call, which then takes seconds.
        """
        ...

    def __call__(self, batch: Batch, noise_bta: Tensor) -> Tensor:
        """Normalised actions [b, t, a], float32, on the device of the noise."""
        ...


@runtime_checkable
class FlowRequest(Protocol):
    """A network whose request falls into reading the observation and following the flow.

    Attributes:
        pads_prompts: Whether further padding at the end of the prompt changes nothing.
        action_dim: Action dimensions that are not padding.
    """

    config: Any
    pads_prompts: ClassVar[bool]

    @property
    def action_dim(self) -> int:
        """See the class."""
        ...

    def read_observation(self, batch: Batch) -> Any:
        """All that a flow needs of the observation: tensors in tuples and frozen dataclasses."""
        ...

    def step_features(self) -> Sequence[Any]:
        """What depends on the flow times alone, alike for each Euler step; tensors as above."""
        ...

    def flow_step(self, observed: Any, batch: Batch, x_bta: Tensor, feature: Any) -> Tensor:
        """One Euler step, float32 [b, t, a], padded dimensions included."""
        ...

    def follow_flow(
        self, observed: Any, batch: Batch, noise_bta: Tensor, features: Sequence[Any]
    ) -> Tensor:
        """All of them, from noise to normalised actions [b, t, a]."""
        ...
