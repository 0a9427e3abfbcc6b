"""Reading LeRobot's config.json into a typed config, and writing it back as it was."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json
from fastvla_core.models.lerobot.binding import Binding, plain_binding, read_binding
from fastvla_core.models.lerobot.features import Features
from fastvla_core.plain_data import PlainDataError, convert

ConfigT = TypeVar("ConfigT")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class LeRobotConfig:
    """What every policy in LeRobot's layout has.

    Attributes:
        raw: The content of config.json, kept whole: other tools read more of it than we do.
        features: Cameras and real dimensions.
        binding: Whose cameras and columns they are.
        chunk_size: Action steps per inference.
        n_action_steps: Steps that are executed before the next inference.
        normalization_mapping: How images, states and actions are normalised.
        use_relative_actions: Predict targets minus the present state, except for
            `relative_exclude_joints`.
        action_feature_names: Names of the action's columns, where the checkpoint knows them.
        fits_any_robot: Whether the network takes states and actions of any size.
    """

    fits_any_robot: ClassVar[bool] = False

    raw: Mapping[str, Any]
    features: Features
    binding: Binding
    chunk_size: int
    n_action_steps: int
    normalization_mapping: Mapping[str, str]
    use_relative_actions: bool = False
    relative_exclude_joints: tuple[str, ...] = ()
    action_feature_names: tuple[str, ...] | None = None

    @property
    def policy_type(self) -> str:
        """The value of "type"."""
        return str(self.raw["type"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """The robot's cameras that the policy sees."""
        return tuple(self.binding.cameras.values())

    @property
    def optional_cameras(self) -> tuple[str, ...]:
        """Those that may be missing."""
        return self.binding.optional_cameras

    @property
    def state_names(self) -> tuple[str, ...]:
        """Columns of the state."""
        return self.binding.state_names

    @property
    def action_names(self) -> tuple[str, ...]:
        """Columns of the action."""
        return self.binding.action_names

    @property
    def action_dim(self) -> int:
        """Real action dimensions."""
        return self.features.action_dim

    @property
    def action_dt_s(self) -> float:
        """Time between two action steps."""
        return self.binding.action_dt_s

    @property
    def robot_contract(self) -> Mapping[str, Any] | None:
        """The contract that the checkpoint was bound to."""
        return self.binding.robot_contract

    @property
    def robot_contract_hash(self) -> str | None:
        """Its hash."""
        return self.binding.robot_contract_hash

    @property
    def past_steps(self) -> int:
        """Action steps before an observation whose observations the network reads with it."""
        return 0

    @property
    def relative_joints(self) -> tuple[str, ...]:
        """Actions that are predicted relative to the state."""
        if not self.use_relative_actions:
            return ()
        words = [word.lower() for word in self.relative_exclude_joints]
        return tuple(n for n in self.action_names if not any(w in n.lower() for w in words))

    @property
    def dtype(self) -> torch.dtype:
        """The type that the weights are brought to: "dtype" of config.json, else float32."""
        return DTYPES.get(str(self.raw.get("dtype", "float32")), torch.float32)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return dict(self.raw)


def typed_fields(
    kind: type[Any], data: Mapping[str, Any], *, source: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of the dataclass `kind` that stand in `data` under their own names, and `given`.

    Raises:
        CheckpointError: one is missing or has a wrong value; names source and key.
    """
    hints = typing.get_type_hints(kind)
    values = dict(given)
    for item in dataclasses.fields(kind):
        if item.name in values:
            continue
        if item.name not in data:
            if item.default is dataclasses.MISSING:
                raise CheckpointError(
                    f"{source}: the key '{item.name}' is missing",
                    mend="use the config.json that LeRobot saved",
                )
            continue
        try:
            values[item.name] = convert(data[item.name], hints[item.name], where=item.name)
        except PlainDataError as error:
            raise CheckpointError(
                f"{source}: {error}", mend="use the config.json that LeRobot saved"
            ) from error
    return values


def stored_binding(folder: Path, data: Mapping[str, Any], features: Features) -> Binding:
    """What fastvla.json says, else the plain binding of a checkpoint without a robot.

    Raises:
        CheckpointError: fastvla.json is damaged, or of another policy.
    """
    state_dim = features.state_dim or int(data.get("max_state_dim", 0))
    binding = read_binding(folder)
    if binding is not None:
        for what, names, dim in (
            ("state", binding.state_names, state_dim),
            ("action", binding.action_names, features.action_dim),
        ):
            if len(names) != dim:
                raise CheckpointError(
                    f"{folder / 'fastvla.json'}: '{what}_names' has {len(names)} entries, "
                    f"config.json {dim}",
                    mend="bind the checkpoint to the robot again",
                )
        return binding
    names = data.get("action_feature_names")
    return plain_binding(
        features,
        renamed=_renamed(folder),
        action_names=tuple(map(str, names)) if isinstance(names, list) else None,
        state_dim=state_dim,
    )


def _renamed(folder: Path) -> dict[str, str]:
    """The checkpoint's own renaming of cameras: the robot's name to the policy's."""
    from fastvla_core.models.lerobot.features import camera_name

    path = folder / "policy_preprocessor.json"
    steps = read_json(path).get("steps") if path.is_file() else None
    for step in steps if isinstance(steps, list) else ():
        if (
            isinstance(step, Mapping)
            and step.get("registry_name") == "rename_observations_processor"
        ):
            names = dict(step.get("config") or {}).get("rename_map") or {}
            return {camera_name(str(a)): camera_name(str(b)) for a, b in dict(names).items()}
    return {}
