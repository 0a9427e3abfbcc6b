"""What the families of policies without language share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.family import LeRobotFamily
from fastvla_core.models.lerobot.files import ARCHITECTURE
from fastvla_core.models.lerobot.images import ImageStep
from fastvla_core.models.lerobot.made_steps import DEVICE, NORMALIZER, START
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.policies.visuomotor.config import VisuomotorConfig
from fastvla_core.models.policies.visuomotor.images import CameraImages
from fastvla_core.models.policies.visuomotor.processor import VisuomotorProcessor


class VisuomotorFamily(LeRobotFamily):
    """Images by their statistics, no tokenizer, and a file of sizes for unusual backbones."""

    @classmethod
    def entries(cls, config: VisuomotorConfig) -> list[Mapping[str, Any]]:
        """LeRobot's steps for ACT and Diffusion Policy."""
        return [*START, DEVICE, {"registry_name": NORMALIZER}]

    @staticmethod
    def images(config: VisuomotorConfig) -> ImageStep:
        """Every camera at the size that it had in training."""
        sizes = zip(config.features.cameras, config.image_sizes, strict=True)
        return CameraImages(sizes=dict(sizes))

    @staticmethod
    def check_image_statistics(config: LeRobotConfig, folder: Path) -> None:
        """Every way of normalising images is known."""

    @staticmethod
    def processor_class(config: Any) -> type[LeRobotProcessor]:
        """The class of the processor."""
        return VisuomotorProcessor

    @classmethod
    def save_config(cls, folder: Path, config: Any) -> None:
        """The usual files, and the sizes where they are not published ones."""
        super().save_config(folder, config)
        if config.architecture is not None:
            shutil.copy2(config.architecture, folder / ARCHITECTURE)
