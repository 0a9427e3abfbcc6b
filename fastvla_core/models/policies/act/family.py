"""What `FastVLA` needs to know of ACT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fastvla_core.models.checkpoint import write_tensors
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.lerobot.stored import SINGLE, read_stored
from fastvla_core.models.lerobot.weights import Unused, stored_weights, take_weights
from fastvla_core.models.policies.act.config import ActConfig, read_config
from fastvla_core.models.policies.act.model import Act
from fastvla_core.models.policies.act.weights import (
    TABLE,
    joined_projections,
    split_projections,
)
from fastvla_core.models.policies.visuomotor.family import VisuomotorFamily


class ActFamily(VisuomotorFamily):
    """Config, network and weights of type "act"."""

    table = TABLE

    @classmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> ActConfig:
        """See `read_config`."""
        return read_config(data, folder=folder, files=files)

    @staticmethod
    def model(config: ActConfig) -> Act:
        """The network with fresh weights."""
        return Act(config)

    @classmethod
    def load_weights(cls, model: Any, config: Any, folder: Path) -> None:
        """See `LeRobotFamily.load_weights`; joint projections are taken apart."""
        stored = split_projections(read_stored(folder))
        model.unused = take_weights(
            model, stored, table=cls.table, dtype=config.dtype, source=folder
        )

    @classmethod
    def save_weights(cls, folder: Path, model: nn.Module) -> None:
        """Write the weights under LeRobot's names, projections joint again."""
        unused = getattr(model, "unused", Unused())
        stored = stored_weights(model, unused, table=cls.table)
        write_tensors(folder / SINGLE, joined_projections(stored))
