"""The transforms of LeRobot's processors, small and frozen; serving and training share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fastvla_core.errors import ObservationError
from fastvla_core.models.lerobot.normalization import Affine
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.lerobot.transition import Transition

# 256 bins over [-1, 1]; what lies below is -1, what lies above 255.
_BIN_EDGES = np.linspace(-1, 1, 257)[:-1]


@dataclass(frozen=True, slots=True)
class Nothing:
    """A step that concerns LeRobot's own containers only: batching, devices."""

    def __call__(self, transition: Transition) -> Transition:
        """The same."""
        return transition


@dataclass(frozen=True, slots=True)
class RenameCameras:
    """Gives images another feature key."""

    names: Mapping[str, str]

    def __call__(self, transition: Transition) -> Transition:
        """The same images under the policy's keys."""
        images = {self.names.get(key, key): image for key, image in transition.images.items()}
        return replace(transition, images=images)


@dataclass(frozen=True, slots=True)
class AppendNewline:
    """Ends every instruction with a newline, as PaliGemma's and SmolVLM's prompts do."""

    def __call__(self, transition: Transition) -> Transition:
        """The same with longer tasks."""
        tasks = (task if task.endswith("\n") else f"{task}\n" for task in transition.tasks)
        return replace(transition, tasks=tuple(tasks))


@dataclass(frozen=True, slots=True)
class StateInPrompt:
    """Writes the normalised state into the prompt, as numbers of 256 bins.

    Attributes:
        ending: What follows the state.
    Source: pi0.5, arXiv:2504.16054.
    """

    ending: str

    def __call__(self, transition: Transition) -> Transition:
        """The same with prompts for tasks."""
        if transition.state is None:
            raise ObservationError("the prompt needs the state, and there is none")
        bins = np.digitize(transition.state.cpu().numpy(), _BIN_EDGES) - 1
        prompts = (
            f"Task: {_clean(task)}, State: {' '.join(map(str, row))};\n{self.ending}"
            for task, row in zip(transition.tasks, bins.tolist(), strict=True)
        )
        return replace(transition, tasks=tuple(prompts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Prompts to token ids.

    Attributes:
        fill: Pad to `max_length` rather than to the longest prompt.
        cut: Shorten prompts that are longer.
    """

    tokenizer: TextTokenizer
    max_length: int
    fill: bool
    cut: bool

    def __call__(self, transition: Transition) -> Transition:
        """The same with `tokens` and `token_mask`."""
        tokens, mask = self.tokenizer.encode(
            transition.tasks,
            max_length=self.max_length,
            pad_to=self.max_length if self.fill else None,
            cut=self.cut,
        )
        return replace(transition, tokens=tokens, token_mask=mask)


@dataclass(frozen=True, slots=True)
class RelativeActions:
    """Subtracts the present state from the actions in some columns.

    Attributes:
        columns: True for the columns that become relative.
    """

    columns: Tensor

    def __call__(self, transition: Transition) -> Transition:
        """The same with relative actions; without actions, the same."""
        if transition.action is None:
            return transition
        return replace(transition, action=transition.action - self.offset(transition))

    def offset(self, transition: Transition) -> Tensor:
        """What is subtracted, [b, 1, a]."""
        if transition.state is None:
            raise ObservationError("relative actions need the state, and there is none")
        state = transition.state[:, None, : len(self.columns)]
        return torch.where(self.columns.to(state.device), state, 0.0)


@dataclass(frozen=True, slots=True)
class AbsoluteActions:
    """The inverse of `RelativeActions`."""

    relative: RelativeActions

    def __call__(self, transition: Transition) -> Transition:
        """The same with absolute actions."""
        assert transition.action is not None
        offset = self.relative.offset(transition).to(transition.action)
        return replace(transition, action=transition.action + offset)


@dataclass(frozen=True, slots=True)
class Normalize:
    """Brings state and action to the network's range; None leaves a feature as it is.

    Attributes:
        images: The scaling of the colours, by camera feature key; of pixels in [0, 1].
    """

    state: Affine | None
    action: Affine | None
    images: Mapping[str, Affine] = field(default_factory=dict)

    def __call__(self, transition: Transition) -> Transition:
        """The same with normalised state and images and, where there is one, action."""
        state, action = transition.state, transition.action
        return replace(
            transition,
            images={
                key: self.images[key].normalize(image.float() / 255)
                if key in self.images
                else image
                for key, image in transition.images.items()
            },
            state=state if self.state is None or state is None else self.state.normalize(state),
            action=action
            if self.action is None or action is None
            else self.action.normalize(action),
        )


@dataclass(frozen=True, slots=True)
class Unnormalize:
    """Brings actions back from the network's range."""

    action: Affine | None

    def __call__(self, transition: Transition) -> Transition:
        """The same with actions in the robot's units."""
        if self.action is None or transition.action is None:
            return transition
        return replace(transition, action=self.action.unnormalize(transition.action))


def _clean(task: str) -> str:
    return task.strip().replace("_", " ").replace("\n", " ")
