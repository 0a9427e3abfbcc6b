"""What an action head is: it reads a backbone, and gives normalised chunks of actions.

Shapes: b batch, p prefix tokens, w backbone width, t action steps, a action dimensions, s state
dimensions.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from fastvla_core.layers.attention import AttentionShape, KeyValue
from fastvla_core.layers.rope import RopeTable
from fastvla_core.models.flow_prefix import FlowPrefix

Batch = Mapping[str, Any]
Rotation: TypeAlias = Callable[[Tensor, int], RopeTable]
"""Positions [b, n] and the number of a backbone's layer to the angles of that layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneOffer:
    """What a backbone has for a head to read.

    Attributes:
        width: Of the hidden states.
        depth: Layers; a head may read the output of any of them.
        attention: Heads of the layers' keys and values; None where there are none to attend to
            jointly, for the reason `no_joint`.
    """

    width: int
    depth: int
    attention: AttentionShape | None = None
    no_joint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSizes:
    """Sizes of what a head gives, and of the state that it is given.

    Attributes:
        steps, action: t and a.
        state: s.
        max_prefix_steps: First steps of a chunk that training gives as they are, at most.
    """

    steps: int
    action: int
    state: int
    max_prefix_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Layers of the backbone that a head reads, counted from 0.

    Attributes:
        hidden: Layers whose output it reads.
        key_values: Layers whose keys and values it attends to.
    """

    hidden: tuple[int, ...] = ()
    key_values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a head knows of the observations.

    Attributes:
        hidden: Outputs [b, p, w] by layer, of those that the head wants.
        key_values: Keys and values by layer, of those that the head wants.
        mask_bp: True where a prefix token is real.
        next_position_b: The position right behind the prefix.
        rotation: How a layer of the backbone rotates tokens at positions [b, n].
        state_bs: float32, normalised.
    """

    hidden: Mapping[int, Tensor]
    key_values: Mapping[int, KeyValue]
    mask_bp: Tensor
    next_position_b: Tensor
    rotation: Rotation
    state_bs: Tensor

    def detached(self) -> Context:
        """The same values, through which no gradient flows."""
        return dataclasses.replace(
            self,
            hidden={layer: x.detach() for layer, x in self.hidden.items()},
            key_values={layer: own.detached() for layer, own in self.key_values.items()},
        )


class ActionHead(nn.Module, ABC):
    """Base of the heads; each is made as Head(options, offer=, sizes=, action_tokenizer=).

    Attributes:
        options_type: Frozen dataclass of the head's options, as config.json holds them.
        is_flow: Whether noise becomes actions along a velocity, so that a chunk can be made to
            agree with what is planned.
        full_precision: Patterns of the layers below that quantisation leaves alone.
    """

    options_type: ClassVar[type[Any]]
    is_flow: ClassVar[bool] = False
    full_precision: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def wanted(self) -> Wanted:
        """What the head reads of the backbone."""

    @abstractmethod
    def compile_layers(self) -> None:
        """Compile what is called many times per chunk, each layer by itself."""

    @abstractmethod
    def loss(
        self, context: Context, batch: Batch, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The training loss.

        Args:
            batch: Holds `action`, float32 [b, t, a], normalised.
            generator: Source of what is drawn; any device.
        Returns:
            loss: scalar with gradient; heads may add further tensors.
        """

    @abstractmethod
    def actions(
        self, context: Context, noise_bta: Tensor, continued: FlowPrefix | None = None
    ) -> Tensor:
        """Normalised actions, float32 [b, t, a].

        Args:
            noise_bta: Where a flow starts; other heads need none.
            continued: What the actions have to agree with, for flows only.
        """
