"""Sizes and conventions of pi0, pi0.5 and pi0-FAST; read from LeRobot's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.paligemma import PaliGemmaSize
from fastvla_core.models.lerobot.config import LeRobotConfig, stored_binding, typed_fields
from fastvla_core.models.lerobot.features import read_features
from fastvla_core.models.lerobot.files import LocalFiles, architecture_file
from fastvla_core.models.policies.pi.sizes import published_sizes, read_sizes
from fastvla_core.types import Conditioning


@dataclass(frozen=True, kw_only=True)
class PaliGemmaConfig(LeRobotConfig):
    """What the three pi policies have in common.

    Attributes:
        paligemma: Sizes of vision tower and language model.
        architecture: File that they were read from; None for published ones.
        image_resolution: Height and width of the images that the network sees.
    """

    fits_any_robot: ClassVar[bool] = True

    paligemma: PaliGemmaSize
    architecture: Path | None = None
    image_resolution: tuple[int, int] = (224, 224)
    tokenizer_max_length: int = 48


@dataclass(frozen=True, kw_only=True)
class PiConfig(PaliGemmaConfig):
    """Everything that fixes a pi0 or pi0.5 except its weights and statistics.

    Attributes:
        expert: Sizes of the action expert.
        num_inference_steps: Euler steps from noise to actions.
        time_sampling_*: Training times are Beta(alpha, beta) * scale + offset.
    """

    expert: DecoderSize
    max_state_dim: int = 32
    max_action_dim: int = 32
    num_inference_steps: int = 10
    min_period: float = 4e-3
    max_period: float = 4.0
    time_sampling_beta_alpha: float = 1.5
    time_sampling_beta_beta: float = 1.0
    time_sampling_scale: float = 0.999
    time_sampling_offset: float = 0.001

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """How a chunk of this policy can be made to agree with a prefix."""
        return ("inpaint",)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Action steps and padded action dimensions."""
        return self.chunk_size, self.max_action_dim

    @property
    def flow_steps(self) -> int:
        """Euler steps from noise to actions."""
        return self.num_inference_steps


def common_values(
    data: Mapping[str, Any], *, folder: Path, files: LocalFiles
) -> tuple[dict[str, Any], DecoderSize | None]:
    """The values that config.json does not hold under a field's own name, and the expert's size.

    Raises:
        CheckpointError: a key is missing or wrong.
    """
    source = str(folder / "config.json")
    features = read_features(data, source=source, empty_cameras=int(data.get("empty_cameras", 0)))
    found = architecture_file(folder, files.architecture)
    resolution = _resolution(data)
    if found is None:
        size, expert = published_sizes(data, image_side=resolution[0], source=source)
    else:
        size, expert = read_sizes(found)
    if resolution[0] != resolution[1] or resolution[0] // size.vision.patch != size.vision.grid:
        raise CheckpointError(
            f"{source}: 'image_resolution' is {list(resolution)}, and the vision tower has "
            f"{size.vision.grid} patches of {size.vision.patch} pixels along a side",
            mend="use the sizes that belong to these weights",
        )
    values = {
        "raw": data,
        "features": features,
        "binding": stored_binding(folder, data, features),
        "paligemma": size,
        "architecture": found,
        "image_resolution": resolution,
    }
    return values, expert


def read_pi_config(data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> PiConfig:
    """Read the config.json of a pi0 or pi0.5.

    Raises:
        CheckpointError: a key is missing or wrong, or asks for what does not exist.
    """
    source = str(folder / "config.json")
    given, expert = common_values(data, folder=folder, files=files)
    if expert is None:
        raise CheckpointError(
            f"{given['architecture']}: 'action_expert' is missing", mend="write its sizes"
        )
    given["expert"] = expert
    if "num_steps" in data and "num_inference_steps" not in data:
        given["num_inference_steps"] = int(data["num_steps"])
    config = PiConfig(**typed_fields(PiConfig, data, source=source, given=given))
    text = config.paligemma.text
    refused = [
        (expert.depth != text.depth, "expert and language model differ in depth"),
        (expert.attention != text.attention, "expert and language model differ in heads"),
        (config.n_action_steps > config.chunk_size, "'n_action_steps' is above 'chunk_size'"),
        (config.features.state_dim > config.max_state_dim, "the state is above 'max_state_dim'"),
        (config.action_dim > config.max_action_dim, "the action is above 'max_action_dim'"),
        (config.flow_steps < 1 or config.chunk_size < 1, "steps or 'chunk_size' are below 1"),
        (config.time_sampling_beta_beta != 1.0, "'time_sampling_beta_beta' is not 1"),
        (bool(data.get("adapt_to_pi_aloha")), "'adapt_to_pi_aloha' is set"),
    ]
    for wrong, what in refused:
        if wrong:
            raise CheckpointError(f"{source}: {what}", mend="there is no such network; correct it")
    return config


def _resolution(data: Mapping[str, Any]) -> tuple[int, int]:
    if "image_resolution" not in data and data.get("resize_imgs_with_padding"):
        # Checkpoints of LeRobot's first pi0: width and height.
        width, height = data["resize_imgs_with_padding"]
        return int(height), int(width)
    height, width = data.get("image_resolution", (224, 224))
    return int(height), int(width)
