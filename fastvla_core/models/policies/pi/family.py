"""What `FastVLA` needs to know of pi0 and pi0.5."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.kernels.preprocess import PreprocessSpec
from fastvla_core.models.lerobot.family import LeRobotFamily
from fastvla_core.models.lerobot.files import ARCHITECTURE, LocalFiles
from fastvla_core.models.lerobot.images import ModelImages
from fastvla_core.models.lerobot.made_steps import usual_entries
from fastvla_core.models.policies.pi.config import PaliGemmaConfig, PiConfig, read_pi_config
from fastvla_core.models.policies.pi.model import Pi0, Pi05
from fastvla_core.models.policies.pi.weights import PI0_TABLE, PI05_TABLE

PALIGEMMA_TOKENIZER = "google/paligemma-3b-pt-224"


class PaliGemmaFamily(LeRobotFamily):
    """What the three pi policies share: images and the file of sizes."""

    @staticmethod
    def images(config: PaliGemmaConfig) -> ModelImages:
        """Padded on both sides; every missing camera is shown as a masked image."""
        height, width = config.image_resolution
        return ModelImages(
            cameras=config.features.cameras,
            spec=PreprocessSpec(height=height, width=width),
            missing=len(config.features.cameras),
        )

    @classmethod
    def save_config(cls, folder: Path, config: Any) -> None:
        """The usual files, and the sizes where they are not published ones."""
        super().save_config(folder, config)
        if config.architecture is not None:
            shutil.copy2(config.architecture, folder / ARCHITECTURE)


class Pi0Family(PaliGemmaFamily):
    """Config, network and weights of type "pi0"."""

    table = PI0_TABLE

    @classmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> PiConfig:
        """See `read_pi_config`."""
        return read_pi_config(data, folder=folder, files=files)

    @classmethod
    def entries(cls, config: PiConfig) -> list[Mapping[str, Any]]:
        """LeRobot's steps for pi0."""
        return usual_entries(
            config, prompt=("pi0_new_line_processor",), tokenizer_name=PALIGEMMA_TOKENIZER
        )

    @staticmethod
    def model(config: PiConfig) -> Pi0:
        """The network with fresh weights."""
        return Pi0(config)


class Pi05Family(Pi0Family):
    """Config, network and weights of type "pi05"."""

    table = PI05_TABLE

    @classmethod
    def entries(cls, config: PiConfig) -> list[Mapping[str, Any]]:
        """LeRobot's steps for pi0.5."""
        return usual_entries(
            config,
            prompt=("pi05_prepare_state_tokenizer_processor_step",),
            tokenizer_name=PALIGEMMA_TOKENIZER,
            normalize_first=True,
        )

    @staticmethod
    def model(config: PiConfig) -> Pi05:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The network with fresh weights."""
        return Pi05(config)
