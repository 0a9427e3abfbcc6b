"""What `FastVLA` needs to know of SmolVLA."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.kernels.preprocess import PreprocessSpec
from fastvla_core.models.lerobot.family import LeRobotFamily
from fastvla_core.models.lerobot.files import LocalFiles, find_part
from fastvla_core.models.lerobot.images import ModelImages
from fastvla_core.models.lerobot.made_steps import usual_entries
from fastvla_core.models.lerobot.text_tokenizer import load_text_tokenizer
from fastvla_core.models.policies.smolvla.config import SmolVLAConfig, read_config
from fastvla_core.models.policies.smolvla.model import SmolVLA
from fastvla_core.models.policies.smolvla.vlm import PUBLISHED, SmolVLMSize, read_vlm_size
from fastvla_core.models.policies.smolvla.weights import TABLE, WORD_HEAD

_MARKERS = (("fake_image_token", "global_image_token"), ("fake_image_token",))


class SmolVLAFamily(LeRobotFamily):
    """Config, network and weights of type "smolvla"."""

    table = TABLE

    @classmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> SmolVLAConfig:
        """See `read_config`."""
        name = str(data.get("vlm_model_name", ""))
        markers = None
        if data.get("add_image_special_tokens"):
            tokenizer = load_text_tokenizer(cls.tokenizer_folder(name, folder, files))
            start, end = (tuple(map(tokenizer.special_id, kinds)) for kinds in _MARKERS)
            markers = (start, end)
        vlm = _vlm_size(name, folder, files)
        return read_config(data, folder=folder, vlm=vlm, markers=markers)

    @staticmethod
    def model(config: SmolVLAConfig) -> SmolVLA:
        """The network with fresh weights."""
        return SmolVLA(config)

    @classmethod
    def load_weights(cls, model: Any, config: Any, folder: Path) -> None:
        """The weights, and the head that writes words where the checkpoint has kept it."""
        super().load_weights(model, config, folder)
        model.word_head = model.unused.tensors.get(WORD_HEAD)

    @classmethod
    def entries(cls, config: SmolVLAConfig) -> list[Mapping[str, Any]]:
        """LeRobot's steps for SmolVLA."""
        return usual_entries(
            config,
            prompt=("smolvla_new_line_processor",),
            tokenizer_name=config.vlm_model_name,
            padding=str(config.raw.get("pad_language_to", "longest")),
        )

    @classmethod
    def save_config(cls, folder: Path, config: Any) -> None:
        """The usual files, and SmolVLM's own small ones where it is not a published one."""
        super().save_config(folder, config)
        if config.vlm.folder is None:
            return
        beside = folder / config.vlm_model_name.rpartition("/")[2]
        beside.mkdir(exist_ok=True)
        for path in (*config.vlm.folder.glob("*.json"), *config.vlm.folder.glob("*.jinja")):
            shutil.copy2(path, beside / path.name)

    @staticmethod
    def images(config: SmolVLAConfig) -> ModelImages:
        """Padded on the left and top; missing cameras only as far as there are empty ones."""
        height, width = config.image_resolution
        return ModelImages(
            cameras=config.features.cameras,
            spec=PreprocessSpec(height=height, width=width, placement="left_top"),
            missing=config.empty_cameras,
        )


def _vlm_size(name: str, folder: Path, files: LocalFiles) -> SmolVLMSize:
    short = name.rpartition("/")[2]
    beside = any((folder / place / "config.json").is_file() for place in (name, short, "vlm"))
    if files.vlm is None and not beside and short in PUBLISHED:
        return PUBLISHED[short]
    found = find_part(
        name,
        folder,
        given=files.vlm,
        usual=("vlm",),
        wanted="config.json",
        source=f"{folder / 'config.json'}: 'vlm_model_name'",
    )
    return read_vlm_size(found / "config.json")
