"""A checkpoint that names no robot, made ready to be trained for one.

Networks that pad states and actions, or read and write them as words, have room for any robot: its
cameras, its columns and the statistics of its recordings take the place of the checkpoint's own;
the weights stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvla_core.contract_binding import RobotBinding, bound_config
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.features import ACTION_KEY, STATE_KEY, camera_key
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES
from fastvla_core.models.lerobot.made_steps import step_files_of
from fastvla_core.models.lerobot.stored import settings_folder
from fastvla_core.models.loading import load_config, load_model
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract import RobotContract

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_RANGES = (("min", "max"), ("q01", "q99"), ("q10", "q90"))
_STATE_FLOOR = 1e-3


def is_adaptable(config: Any) -> bool:
    """Whether a config is of such a network, and of no robot yet."""
    return (
        isinstance(config, LeRobotConfig)
        and config.robot_contract is None
        and config.fits_any_robot
    )


def adapted_data(raw: Mapping[str, Any], contract: RobotContract) -> dict[str, Any]:
    """The content of a config.json with a robot's cameras and columns."""
    images = {
        camera_key(c.name): {"type": "VISUAL", "shape": [3, c.height, c.width]}
        for c in contract.policy_cameras
    }
    state = {"type": "STATE", "shape": [len(contract.state_names)]}
    action = {"type": "ACTION", "shape": [len(contract.action_names)]}
    return {
        **raw,
        "input_features": {**images, STATE_KEY: state},
        "output_features": {ACTION_KEY: action},
        "action_feature_names": list(contract.action_names),
        "empty_cameras": 0,
    }


def adapted_config(
    raw: Mapping[str, Any], *, family: Any, folder: Path, contract: RobotContract, dt_s: float
) -> Any:
    """The config of a checkpoint's network for a robot.

    Args:
        raw: The content of its config.json.
        folder: Where the sizes are that it leaves to other files.
        dt_s: Time between two action steps.
    Raises:
        CheckpointError: the robot has more columns than the network.
    """
    config = family.config(adapted_data(raw, contract), folder=folder, files=NO_LOCAL_FILES)
    binding = RobotBinding(action_dt_s=dt_s)
    return bound_config(config, contract, binding, source=str(folder / "config.json"))


def adapted_policy(
    path_or_name: str,
    *,
    contract: RobotContract,
    dt_s: float,
    state_ns: Tensor,
    actions_nta: Tensor,
    floor_a: Tensor,
) -> FastVLA:
    """The policy with a robot's cameras and columns, and with statistics of its recordings.

    Args:
        dt_s: Time between two action steps.
        state_ns: States of the recordings, n of them.
        actions_nta: The targets of the steps that follow each; absolute.
        floor_a: Smallest standard deviation of the actions [rad or m]: a joint that hardly moved
            in the recordings is not blown up when it does move.
    Raises:
        CheckpointError: a file is missing or damaged, or the robot has too many columns.
    """
    folder = find_checkpoint(path_or_name)
    family, own = load_config(folder)
    config = adapted_config(
        own.raw, family=family, folder=settings_folder(folder), contract=contract, dt_s=dt_s
    )
    model = load_model(family, config, folder, quantization=None)
    targets = actions_nta
    if relative := config.relative_joints:
        columns = torch.tensor([name in relative for name in config.action_names])
        targets = targets - torch.where(columns, state_ns[:, None, : len(columns)], 0.0)
    statistics = {
        STATE_KEY: _statistics(state_ns, torch.tensor(_STATE_FLOOR)),
        ACTION_KEY: _statistics(targets.flatten(0, 1), floor_a),
    }
    files = step_files_of(folder, config, family.entries(config), statistics, eps=1e-8)
    processor = family.load_processor(settings_folder(folder), config, step_files=files)
    return FastVLA(config=config, model=model, processor=processor)


def _statistics(values_nd: Tensor, floor: Tensor) -> dict[str, Tensor]:
    exact = values_nd.double()
    # `torch.quantile` refuses more than 16 million values.
    ranked = exact.sort(dim=0).values
    last = len(ranked) - 1
    found = {
        "mean": exact.mean(dim=0),
        "std": exact.std(dim=0, unbiased=False).clamp_min(floor),
        "min": ranked[0],
        "max": ranked[-1],
        **{name: ranked[round(share * last)] for name, share in _QUANTILES.items()},
    }
    for low, high in _RANGES:
        missing = (2 * floor - (found[high] - found[low])).clamp_min(0) / 2
        found[low], found[high] = found[low] - missing, found[high] + missing
    return {name: value.float() for name, value in found.items()}
