"""What `FastVLA` needs to know of Diffusion Policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.policies.diffusion.config import DiffusionConfig, read_config
from fastvla_core.models.policies.diffusion.model import Diffusion
from fastvla_core.models.policies.diffusion.weights import TABLE
from fastvla_core.models.policies.visuomotor.family import VisuomotorFamily
from fastvla_core.models.policies.visuomotor.processor import HistoryProcessor


class DiffusionFamily(VisuomotorFamily):
    """Config, network and weights of type "diffusion"."""

    table = TABLE

    @classmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> DiffusionConfig:
        """See `read_config`."""
        return read_config(data, folder=folder, files=files)

    @staticmethod
    def model(config: DiffusionConfig) -> Diffusion:
        """The network with fresh weights."""
        return Diffusion(config)

    @staticmethod
    def processor_class(config: Any) -> type[LeRobotProcessor]:
        """The class of the processor."""
        return HistoryProcessor
