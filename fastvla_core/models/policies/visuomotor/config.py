"""What the configs of policies without language have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError, ContractError
from fastvla_core.models.backbones.resnet import PUBLISHED, ResNetSize
from fastvla_core.models.checkpoint import read_json
from fastvla_core.models.lerobot.config import LeRobotConfig, stored_binding
from fastvla_core.models.lerobot.features import read_features
from fastvla_core.models.lerobot.files import LocalFiles, architecture_file
from fastvla_core.plain_data import PlainDataError, fill

_ENVIRONMENT = "observation.environment_state"


@dataclass(frozen=True, kw_only=True)
class VisuomotorConfig(LeRobotConfig):
    """A policy that sees cameras and joints.

    Attributes:
        backbone: The residual network that reads the images.
        architecture: File with its sizes where it is not a published one.

    Raises:
        ContractError: a camera of the policy is bound to none of the robot's.
    """

    backbone: ResNetSize
    architecture: Path | None = None

    def __post_init__(self) -> None:
        for name in self.features.camera_names:
            if name not in self.binding.cameras:
                raise ContractError(
                    f"no camera takes the place of the policy's '{name}', and type "
                    f"'{self.policy_type}' cannot do without it",
                    mend=f"map it: `--camera {name}=CAMERA`",
                )

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width that each camera had in training."""
        return tuple(self.features.image_sizes[key] for key in self.features.cameras)

    @property
    def image_resolution(self) -> tuple[int, int]:
        """Those of the first camera."""
        return self.image_sizes[0]


def common_values(
    data: Mapping[str, Any], *, folder: Path, files: LocalFiles, dilated: bool = False
) -> dict[str, Any]:
    """The values that config.json does not hold under a field's own name.

    Args:
        dilated: Whether the backbone's last stage keeps the size of the map.
    Raises:
        CheckpointError: a key is missing or wrong, or asks for what a robot does not have.
    """
    source = str(folder / "config.json")
    features = read_features(data, source=source)
    if _ENVIRONMENT in data["input_features"] or not features.state_dim:
        raise CheckpointError(
            f"{source}: 'input_features' "
            + ("has no 'observation.state'" if not features.state_dim else f"has '{_ENVIRONMENT}'"),
            mend="train with the robot's state and cameras: nothing else comes from a robot",
        )
    binding = stored_binding(folder, data, features)
    if binding.robot_contract is None:
        # Their authors' networks know no missing camera; a contract may say that one is optional.
        binding = dataclasses.replace(binding, optional_cameras=())
    found = architecture_file(folder, files.architecture)
    size = _published(data, source) if found is None else _read_size(found)
    if dilated and size.block == "basic":
        raise CheckpointError(
            f"{source}: 'replace_final_stride_with_dilation' is set for a backbone of basic blocks",
            mend="only networks of bottleneck blocks (resnet50 and larger) can be dilated",
        )
    return {
        "raw": data,
        "features": features,
        "binding": binding,
        "backbone": dataclasses.replace(size, dilated=dilated),
        "architecture": found,
    }


def _published(data: Mapping[str, Any], source: str) -> ResNetSize:
    name = data.get("vision_backbone", "resnet18")
    if name not in PUBLISHED:
        raise CheckpointError(
            f"{source}: 'vision_backbone' is {name!r}; known: {', '.join(PUBLISHED)}",
            mend="write its sizes into architecture.json beside config.json",
        )
    return PUBLISHED[name]


def _read_size(path: Path) -> ResNetSize:
    try:
        return fill(ResNetSize, read_json(path).get("backbone"), where="backbone")
    except PlainDataError as error:
        raise CheckpointError(
            f"{path}: {error}", mend="write the sizes that the weights were trained with"
        ) from error
