"""Observations to a network's batch, and its output to absolute targets, by LeRobot's files.

Shapes: b batch, c cameras, t action steps, a action dimensions, s state dimensions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastvla_core.errors import ObservationError
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.features import camera_name
from fastvla_core.models.lerobot.images import ImageStep
from fastvla_core.models.lerobot.step_files import StepFile
from fastvla_core.models.lerobot.steps import Normalize, RelativeActions
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.lerobot.transition import Step, Transition, run_steps
from fastvla_core.models.planned import planned_rows
from fastvla_core.types import ChunkPrefix, Observation


class LeRobotProcessor:
    """Runs a checkpoint's own steps, then brings images and vectors to the network's sizes.

    Args:
        config: Names and sizes.
        before, after: The steps in front of the network and behind it.
        images: What the network wants its images to be.
        files: Where the steps come from; saved as they are.
        tokenizers: Folder names in a saved checkpoint to the tokenizers that go there.

    Attributes:
        upload: Brings a camera's images to the device; None copies them, and waits for that.
    """

    upload: Callable[[str, Tensor], Tensor] | None = None

    # What `training_batch` takes beyond what every policy learns from.
    also_reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        config: LeRobotConfig,
        *,
        before: tuple[Step, ...],
        after: tuple[Step, ...],
        images: ImageStep,
        files: tuple[StepFile, StepFile],
        tokenizers: Mapping[str, TextTokenizer],
    ) -> None:
        self.config = config
        self.before = before
        self.after = after
        self.images = images
        self.files = files
        self.tokenizers = tokenizers
        by_name = {camera_name(key): key for key in config.features.cameras}
        self._keys = {robot: by_name[own] for own, robot in config.binding.cameras.items()}

    @property
    def digest(self) -> str:
        """Stands for config, steps and statistics: equal where weights mean the same."""
        content = [self.config.to_dict(), *(file.data for file in self.files)]
        text = json.dumps(content, sort_keys=True)
        tensors = (
            tensor.cpu().numpy().tobytes()
            for file in self.files
            for _, state in sorted(file.states.items())
            for _, tensor in sorted(state.items())
        )
        return hashlib.sha256(text.encode() + b"".join(tensors)).hexdigest()

    def model_batch(self, transition: Transition, *, device: torch.device) -> dict[str, Tensor]:
        """The network's batch of raw values.

        Raises:
            ObservationError: a value is missing or has a wrong size.
        """
        if self.upload is not None:
            # They go on while the steps below run on the host.
            images = {key: self.upload(key, image) for key, image in transition.images.items()}
            transition = dataclasses.replace(transition, images=images)
        ready = run_steps(self.before, transition)
        batch = {**self.images(ready, device=device), **self.vectors(ready)}
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def prompts(self, transition: Transition) -> tuple[str, ...]:
        """What the language model is to read, before it is tokenized."""
        return run_steps(self.before, transition).tasks

    def vectors(self, ready: Transition) -> dict[str, Tensor]:
        """Everything but the images, padded to the network's sizes."""
        words = {"tokens": ready.tokens, "token_mask": ready.token_mask}
        found = {name: tensor for name, tensor in words.items() if tensor is not None}
        raw = self.config.raw
        if ready.state is not None:
            found["state"] = _padded(ready.state.float(), int(raw.get("max_state_dim", 0)))
        if ready.action is not None:
            found["action"] = _padded(ready.action.float(), int(raw.get("max_action_dim", 0)))
        return found

    def observation_batch(
        self, observations: Sequence[Observation], *, device: torch.device
    ) -> dict[str, Tensor]:
        """The batch for the network's `forward`, on `device`.

        Raises:
            ObservationError: the state has a wrong size, a required camera is missing, or the
                instruction is empty.
        """
        return self.model_batch(self.transition(observations), device=device)

    def flow_prefix(
        self,
        prefixes: Sequence[ChunkPrefix | None],
        observations: Sequence[Observation],
        *,
        device: torch.device,
    ) -> FlowPrefix:
        """What is planned, relative to the present states, normalised and padded.

        Args:
            prefixes: One per observation, None for a chunk that is free; columns go by name.
        Raises:
            PolicyError: names are not the policy's, or ways of conditioning are mixed.
        """
        rows = self.config.chunk_size
        planned = planned_rows(prefixes, names=self.config.action_names, rows=rows)
        state = torch.from_numpy(np.stack([o.state for o in observations]).astype(np.float32))
        action = torch.from_numpy(planned.positions).float()
        framing = tuple(s for s in self.before if isinstance(s, (RelativeActions, Normalize)))
        ready = run_steps(framing, Transition(state=state, action=action))
        assert ready.action is not None
        padded = _padded(ready.action, int(self.config.raw.get("max_action_dim", 0)))
        return planned.flow_prefix(padded, most=rows, device=device)

    def transition(self, observations: Sequence[Observation]) -> Transition:
        """Raw values of observations under the policy's names.

        Raises:
            ObservationError: see `observation_batch`.
        """
        for observation in observations:
            self._check(observation)
        images: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, key in self._keys.items():
            found = [observation.images.get(name) for observation in observations]
            if any(image is not None for image in found):
                images[key] = _stacked(name, found)
                masks[key] = torch.tensor([image is not None for image in found])
        state = np.stack([observation.state for observation in observations])
        return Transition(
            images=images,
            image_masks=masks,
            state=torch.from_numpy(state.astype(np.float32)),
            tasks=tuple(observation.task for observation in observations),
        )

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """`tokens` and `token_mask` of instructions, with a state of zeros where prompts have one.

        Raises:
            ObservationError: a text is empty or no valid Unicode.
        """
        state = torch.zeros(len(texts), len(self.config.state_names))
        ready = run_steps(self.before, Transition(state=state, tasks=tuple(texts)))
        assert ready.tokens is not None
        assert ready.token_mask is not None
        return {"tokens": ready.tokens, "token_mask": ready.token_mask}

    def training_batch(
        self,
        *,
        images: Mapping[str, Tensor],
        image_mask: Tensor,
        state: Tensor,
        actions: Tensor,
        tasks: Sequence[str],
        device: torch.device,
    ) -> dict[str, Tensor]:
        """The batch for the network's `loss` on `device`, from raw values on the CPU.

        Args:
            images: Per robot camera, uint8 [b, H, W, 3].
            image_mask: bool [b, c] in the order of the config's cameras, False where a camera is
                missing or dropped.
            state: [b, s], rad and m.
            actions: [b, t, a], absolute targets, rad and m.
        """
        transition = self.raw_transition(
            images=images, image_mask=image_mask, state=state, actions=actions, tasks=tasks
        )
        return self.model_batch(transition, device=device)

    def raw_transition(
        self,
        *,
        images: Mapping[str, Tensor],
        image_mask: Tensor,
        state: Tensor,
        actions: Tensor | None,
        tasks: Sequence[str],
    ) -> Transition:
        """Values of recorded steps under the policy's names; see `training_batch`."""
        shown = {
            self._keys[name]: (images[name], image_mask[:, column])
            for column, name in enumerate(self.config.cameras)
        }
        return Transition(
            images={key: image for key, (image, _) in shown.items()},
            image_masks={key: mask for key, (_, mask) in shown.items()},
            state=state.float(),
            action=None if actions is None else actions.float(),
            tasks=tuple(tasks),
        )

    def actions(self, output: Tensor) -> Tensor:
        """The network's output as normalised actions [b, t, a]."""
        return output

    def targets(self, output: Tensor, observations: Sequence[Observation]) -> NDArray[np.float64]:
        """The network's output to absolute targets, float64 [b, t, a]; rad and m."""
        state = torch.from_numpy(np.stack([o.state for o in observations]).astype(np.float32))
        actions = self.actions(output).float().cpu()
        return self.absolute_actions(actions, state).double().numpy()

    def absolute_actions(self, actions_bta: Tensor, state_bs: Tensor) -> Tensor:
        """Normalised actions to the robot's units; `state_bs` is raw."""
        done = run_steps(self.after, Transition(action=actions_bta, state=state_bs))
        assert done.action is not None
        return done.action

    def relative(self, targets_bta: Tensor, state_bs: Tensor) -> Tensor:
        """Targets minus the state, for the relative columns; rad and m."""
        transition = Transition(action=targets_bta, state=state_bs)
        relative = tuple(step for step in self.before if isinstance(step, RelativeActions))
        done = run_steps(relative, transition)
        assert done.action is not None
        return done.action

    def random_observation(self, seed: int) -> Observation:
        """An observation with random images and a state within the usual range."""
        random = np.random.default_rng(seed)
        sizes = self.config.features.image_sizes
        scale = next((s.state for s in self.before if isinstance(s, Normalize)), None)
        state = torch.from_numpy(random.uniform(-1, 1, len(self.config.state_names))).float()
        return Observation(
            stamp_ns=seed,
            task="pick up the red cube",
            images={
                name: random.integers(0, 256, (*sizes[key], 3), dtype=np.uint8)
                for name, key in self._keys.items()
            },
            state=(state if scale is None else scale.unnormalize(state)).numpy(),
        )

    def with_files(self, files: tuple[StepFile, StepFile], **others: Any) -> LeRobotProcessor:
        """The same with other files and steps, such as after new statistics."""
        fields = {
            "before": self.before,
            "after": self.after,
            "images": self.images,
            "tokenizers": self.tokenizers,
        }
        return type(self)(self.config, files=files, **{**fields, **others})

    def _check(self, observation: Observation) -> None:
        expected = self.config.state_names
        if observation.state.shape != (len(expected),):
            raise ObservationError(
                f"state: got {observation.state.shape[0]} values, the policy was trained with "
                f"{len(expected)}: {', '.join(expected)}",
                mend="serve the policy with the robot it was trained for",
            )
        needed = set(self._keys) - set(self.config.optional_cameras)
        if missing := sorted(needed - observation.images.keys()):
            have = ", ".join(sorted(observation.images)) or "none"
            raise ObservationError(
                f"no image of camera '{missing[0]}'; got: {have}",
                mend="start the camera, or make it optional in the robot contract",
            )


def _padded(vector: Tensor, width: int) -> Tensor:
    missing = width - vector.shape[-1]
    return functional.pad(vector, (0, missing)) if missing > 0 else vector


def _stacked(name: str, images: Sequence[NDArray[np.uint8] | None]) -> Tensor:
    shapes = {image.shape for image in images if image is not None}
    if len(shapes) > 1:
        raise ObservationError(
            f"camera '{name}': one batch has images of {' and '.join(map(str, sorted(shapes)))}",
            mend="infer from observations of one robot together",
        )
    blank = np.zeros(shapes.pop(), np.uint8)
    return torch.from_numpy(np.stack([blank if image is None else image for image in images]))
