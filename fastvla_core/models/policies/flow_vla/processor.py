"""Observations to the model's batch, and its output to absolute targets: the same in training.

Shapes: b batch, c cameras, l language tokens, t action steps, a action dimensions.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.kernels.preprocess import PreprocessSpec, preprocess
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.models.planned import planned_rows
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, RobotPolicyConfig
from fastvla_core.models.statistics import Statistics
from fastvla_core.models.tokenizer import InstructionTokenizer
from fastvla_core.types import ChunkPrefix, Observation


class RobotProcessor(ABC):
    """Normalises and makes actions relative, and the way back; subclasses read instructions.

    Args:
        config: Names, sizes and which actions are relative.
        statistics: Of states and of (relative) action chunks.

    Attributes:
        upload: Brings an image of a camera to the device; None copies it, and waits for that.
    """

    upload: Callable[[str, Tensor], Tensor] | None = None

    def __init__(self, config: RobotPolicyConfig, *, statistics: Statistics) -> None:
        self.config = config
        self.statistics = statistics
        height, width = config.image_resolution
        self._spec = PreprocessSpec(height=height, width=width)
        relative = config.relative_joints
        self._columns = [i for i, name in enumerate(config.action_names) if name in relative]
        self._states = [config.state_names.index(config.action_names[i]) for i in self._columns]

    @property
    def digest(self) -> str:
        """Stands for config, statistics and vocabulary: equal where weights mean the same."""
        values = (self.statistics.state, self.statistics.action)
        numbers = b"".join(t.cpu().numpy().tobytes() for v in values for t in (v.mean, v.std))
        text = json.dumps([self.config.to_dict(), self.vocabulary], sort_keys=True)
        return hashlib.sha256(text.encode() + numbers).hexdigest()

    @property
    @abstractmethod
    def vocabulary(self) -> str:
        """Stands for what instructions become."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the network reads of the instructions.

        Raises:
            ObservationError: one of them cannot be read.
        """

    def relative(self, targets_bta: Tensor, state_bs: Tensor) -> Tensor:
        """Targets minus the state, for the relative joints; rad and m."""
        result = targets_bta.clone()
        result[..., self._columns] -= state_bs[:, None, self._states]
        return result

    def absolute(self, targets_bta: Tensor, state_bs: Tensor) -> Tensor:
        """The inverse of `relative`."""
        result = targets_bta.clone()
        result[..., self._columns] += state_bs[:, None, self._states]
        return result

    def training_batch(
        self,
        *,
        images: Mapping[str, Tensor],
        image_mask: Tensor,
        state: Tensor,
        actions: Tensor,
        tasks: Sequence[str],
        device: torch.device,
    ) -> dict[str, Any]:
        """The batch for the network's `loss` on `device`, from raw values on the CPU.

        Args:
            images: Per camera of the config, uint8 [b, H, W, 3].
            image_mask: bool [b, c] in the config's order, False where a camera is missing or
                dropped.
            state: [b, S], rad and m.
            actions: [b, t, a], absolute targets, rad and m.
        """
        relative = self.relative(actions, state)
        return {
            "images": preprocess([images[n].to(device) for n in self.config.cameras], self._spec),
            "image_mask": image_mask.to(device),
            "state": self.statistics.state.normalize(state.float()).to(device),
            "action": self.statistics.action.normalize(relative.float()).to(device),
            **_moved(self.encode(tasks), device),
        }

    def observation_batch(
        self, observations: Sequence[Observation], *, device: torch.device
    ) -> dict[str, Any]:
        """The batch for the network's `forward`, on `device`.

        Raises:
            ObservationError: the state has a wrong size, a required camera is missing, or the
                instruction is empty or too long.
        """
        for observation in observations:
            self._check(observation)
        cameras = self.config.cameras
        mask = torch.tensor([[c in o.images for c in cameras] for o in observations])
        # Pixels of a missing camera stay zero: the mask hides their tokens.
        # Uploads come first: what follows on the host needs no image.
        seen = [
            [self._uploaded(c, o.images[c], device) for c in cameras if c in o.images]
            for o in observations
        ]
        state = torch.from_numpy(np.stack([o.state for o in observations]).astype(np.float32))
        others = {
            "image_mask": mask.to(device),
            "state": self.statistics.state.normalize(state).to(device),
            **_moved(self.encode([o.task for o in observations]), device),
        }
        images = torch.zeros(*mask.shape, 3, *self.config.image_resolution, device=device)
        for row, pixels in enumerate(seen):
            images[row, mask[row]] = preprocess(pixels, self._spec)
        return {"images": images, **others}

    def _uploaded(self, camera: str, image: NDArray[np.uint8], device: torch.device) -> Tensor:
        pixels = _pixels(image)
        return pixels.to(device) if self.upload is None else self.upload(camera, pixels)

    def flow_prefix(
        self,
        prefixes: Sequence[ChunkPrefix | None],
        observations: Sequence[Observation],
        *,
        device: torch.device,
    ) -> FlowPrefix:
        """What is planned, relative to the present states and normalised: the network's frame.

        Args:
            prefixes: One per observation, None for a chunk that is free; columns go by name.
        Raises:
            PolicyError: names are not the policy's, or ways of conditioning are mixed.
        """
        planned = planned_rows(
            prefixes, names=self.config.action_names, rows=self.config.chunk_size
        )
        state = torch.from_numpy(np.stack([o.state for o in observations]).astype(np.float64))
        relative = self.relative(torch.from_numpy(planned.positions), state)
        # What exceeds the training is left to the executor, which carries out the plan anyway.
        trained = planned.conditioning == "trained"
        most = self.config.max_prefix_steps if trained else self.config.chunk_size
        normalised = self.statistics.action.normalize(relative)
        return planned.flow_prefix(normalised, most=most, device=device)

    def targets(
        self, actions_bta: Tensor, observations: Sequence[Observation]
    ) -> NDArray[np.float64]:
        """The model's output to absolute targets, float64 [b, t, a]; rad and m."""
        state = torch.from_numpy(np.stack([o.state for o in observations]).astype(np.float64))
        actions = self.statistics.action.unnormalize(actions_bta.cpu().double())
        return self.absolute(actions, state).numpy()

    def random_observation(self, seed: int) -> Observation:
        """An observation with random images and a state within the usual range."""
        random = np.random.default_rng(seed)
        height, width = self.config.image_resolution
        state, names = self.statistics.state, len(self.config.state_names)
        return Observation(
            stamp_ns=seed,
            task="pick up the red cube",
            images={
                camera: random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                for camera in self.config.cameras
            },
            state=(state.mean.numpy() + state.std.numpy() * random.standard_normal(names)).astype(
                np.float32
            ),
        )

    def _check(self, observation: Observation) -> None:
        expected = self.config.state_names
        if observation.state.shape != (len(expected),):
            raise ObservationError(
                f"state: got {observation.state.shape[0]} values, the policy was trained with "
                f"{len(expected)}: {', '.join(expected)}",
                mend="serve the policy with the robot contract it was trained with",
            )
        needed = set(self.config.cameras) - set(self.config.optional_cameras)
        missing = sorted(needed - observation.images.keys())
        if missing or not set(self.config.cameras) & observation.images.keys():
            have = ", ".join(sorted(observation.images)) or "none"
            raise ObservationError(
                f"no image of camera '{(missing or list(self.config.cameras))[0]}'; got: {have}",
                mend="start the camera, or name it in `optional_cameras` of config.json if the "
                "policy was trained to do without",
            )


class FlowVLAProcessor(RobotProcessor):
    """Tokenizes instructions with the policy's own vocabulary.

    Args:
        tokenizer: For the instruction.
    Raises:
        CheckpointError: the tokenizer has more entries than the config's vocabulary.
    """

    def __init__(
        self, config: FlowVLAConfig, *, statistics: Statistics, tokenizer: InstructionTokenizer
    ) -> None:
        super().__init__(config, statistics=statistics)
        if tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} entries, the policy's vocabulary "
                f"{config.vocab_size}",
                mend="use the tokenizer that belongs to config.json, or raise its `vocab_size`",
            )
        self.tokenizer = tokenizer

    @property
    def vocabulary(self) -> str:
        """The tokenizer as JSON."""
        return self.tokenizer.text

    def encode(self, texts: Sequence[str]) -> dict[str, Any]:
        """`tokens` and `token_mask`, int64 and bool [b, l]; see `InstructionTokenizer.encode`."""
        ids, mask = self.tokenizer.encode(texts)
        return {"tokens": torch.from_numpy(ids), "token_mask": torch.from_numpy(mask)}


def _pixels(image: NDArray[np.uint8]) -> Tensor:
    # Torch warns about read-only arrays, as decoded messages are, and cannot run backwards.
    usable = image.flags.writeable and min(image.strides) >= 0
    return torch.from_numpy(image if usable else image.copy())


def _moved(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    # What is read as it is, such as text, stays where it is.
    return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()}
