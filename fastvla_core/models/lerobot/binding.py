"""What LeRobot's files do not say about the robot: kept in fastvla.json beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, write_json
from fastvla_core.models.lerobot.features import Features
from fastvla_core.plain_data import PlainDataError, fill

FILE = "fastvla.json"
# LeRobot records at 30 frames per second unless told otherwise.
DEFAULT_DT_S = 1 / 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """How a checkpoint's cameras and columns belong to a robot.

    Attributes:
        cameras: The policy's camera to the robot's; a camera that is absent here is always
            missing.
        optional_cameras: Robot cameras that may be missing.
        state_names, action_names: Columns of state and action.
        action_dt_s: Time between two action steps.
        robot_contract, robot_contract_hash: Set when the checkpoint was bound to a contract.
    """

    cameras: Mapping[str, str]
    optional_cameras: tuple[str, ...]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_dt_s: float = DEFAULT_DT_S
    robot_contract: Mapping[str, Any] | None = None
    robot_contract_hash: str | None = None


def plain_binding(
    features: Features,
    *,
    renamed: Mapping[str, str],
    action_names: tuple[str, ...] | None,
    state_dim: int,
) -> Binding:
    """The binding of a checkpoint that no robot was named for.

    Every camera keeps its name (or what the checkpoint's own rename step calls it) and may be
    missing, as its authors allow; columns are numbered unless the checkpoint names them.
    """
    outside = {inside: robot for robot, inside in renamed.items()}
    cameras = {name: outside.get(name, name) for name in features.camera_names}
    numbered = tuple(f"action_{index}" for index in range(features.action_dim))
    return Binding(
        cameras=cameras,
        optional_cameras=tuple(cameras.values()),
        state_names=tuple(f"state_{index}" for index in range(state_dim)),
        action_names=action_names if action_names else numbered,
    )


def read_binding(folder: Path) -> Binding | None:
    """The content of FOLDER/fastvla.json, or None where there is none.

    Raises:
        CheckpointError: it is damaged; names the file and the key.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return fill(Binding, read_json(path))
    except PlainDataError as error:
        raise CheckpointError(
            f"{path}: {error}", mend="bind the checkpoint to the robot again"
        ) from error


def write_binding(folder: Path, binding: Binding) -> None:
    """Write FOLDER/fastvla.json; LeRobot's own files stay as LeRobot reads them."""
    write_json(folder / FILE, dataclasses.asdict(binding))
