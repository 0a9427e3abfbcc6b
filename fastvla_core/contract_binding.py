"""Whose cameras and columns a policy's are: bound to a robot contract, or checked against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastvla_core.errors import ContractError
from fastvla_core.models.lerobot.binding import Binding
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.features import Features
from fastvla_core.robot.agreement import check_trained_for
from fastvla_core.robot.contract import RobotContract


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotBinding:
    """What a checkpoint that names no robot cannot know.

    Attributes:
        cameras: The policy's camera to the robot's; None where the robot has none in its place.
            Cameras of equal names need no entry.
        action_dt_s: Time between two action steps; None keeps what the checkpoint says, which
            for LeRobot's is 1/30 s.
    """

    cameras: Mapping[str, str | None] = field(default_factory=dict)
    action_dt_s: float | None = None


def bound_config(
    config: Any, contract: RobotContract | None, binding: RobotBinding, *, source: str
) -> Any:
    """The config for a robot.

    Args:
        source: Of the config, for messages.
    Raises:
        ContractError: a camera of one has no partner in the other, the dimensions differ, or the
            policy was trained for another robot.
    """
    if not isinstance(config, LeRobotConfig) or config.robot_contract is not None:
        if binding != RobotBinding():
            raise ContractError(
                f"{source}: the policy belongs to a robot already",
                mend="leave out cameras and time step",
            )
        if contract is not None:
            check_trained_for(contract, config.robot_contract, source=source)
        return config
    dt_s = binding.action_dt_s or config.action_dt_s
    if contract is None:
        return dataclasses.replace(config, binding=_renamed(config, binding, dt_s, source))
    bound = _contract_binding(
        config.features,
        contract,
        cameras=binding.cameras,
        state_dim=len(config.state_names),
        action_dt_s=dt_s,
        source=source,
    )
    return dataclasses.replace(config, binding=bound)


def _renamed(config: LeRobotConfig, binding: RobotBinding, dt_s: float, source: str) -> Binding:
    _check_names(binding.cameras, config.features, source)
    mapped = {**config.binding.cameras, **binding.cameras}
    cameras = {own: robot for own, robot in mapped.items() if robot is not None}
    return dataclasses.replace(
        config.binding,
        cameras=cameras,
        optional_cameras=tuple(
            robot
            for own, robot in cameras.items()
            if config.binding.cameras.get(own, own) in config.optional_cameras
        ),
        action_dt_s=dt_s,
    )


def _contract_binding(
    features: Features,
    contract: RobotContract,
    *,
    cameras: Mapping[str, str | None],
    state_dim: int,
    action_dt_s: float,
    source: str,
) -> Binding:
    _check_names(cameras, features, source)
    ours = {camera.name: camera for camera in contract.policy_cameras}
    mapped = {name: cameras.get(name, name) for name in features.camera_names}
    for name, own in mapped.items():
        if own is not None and own not in ours:
            raise ContractError(
                f"{source}: the policy's camera '{name}' is no policy camera of contract "
                f"'{contract.name}' ({', '.join(ours) or 'none'})",
                mend=f"map it: `--camera {name}=CAMERA`, or `--camera {name}=-` if the robot has "
                "none in its place",
            )
    if unused := sorted(ours.keys() - {own for own in mapped.values() if own}):
        raise ContractError(
            f"{source}: no camera of the policy takes '{unused[0]}' of contract '{contract.name}'",
            mend="map one to it, or set `policy: false` for it in the contract",
        )
    _check_columns("state", state_dim, contract.state_names, source)
    _check_columns("action", features.action_dim, contract.action_names, source)
    return Binding(
        cameras={name: own for name, own in mapped.items() if own is not None},
        optional_cameras=tuple(name for name, camera in ours.items() if not camera.required),
        state_names=contract.state_names,
        action_names=contract.action_names,
        action_dt_s=action_dt_s,
        robot_contract=contract.to_dict(),
        robot_contract_hash=contract.hash(),
    )


def _check_names(cameras: Mapping[str, str | None], features: Features, source: str) -> None:
    if unknown := sorted(cameras.keys() - set(features.camera_names)):
        raise ContractError(
            f"{source}: the policy has no camera '{unknown[0]}'; it has "
            f"{', '.join(features.camera_names)}",
            mend="correct the name",
        )


def _check_columns(what: str, found: int, names: tuple[str, ...], source: str) -> None:
    if found != len(names):
        raise ContractError(
            f"{source}: the policy's {what} has {found} values, the contract's {len(names)}: "
            f"{', '.join(names)}",
            mend="serve the robot that the policy was trained for, or fine-tune it for this one",
        )
