"""What the policies in LeRobot's layout share: how they are read, and how they are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import write_json
from fastvla_core.models.lerobot.binding import write_binding
from fastvla_core.models.lerobot.config import LeRobotConfig
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles, find_part
from fastvla_core.models.lerobot.images import ImageStep
from fastvla_core.models.lerobot.key_table import KeyTable
from fastvla_core.models.lerobot.made_steps import made_step_files
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.lerobot.step_files import (
    POST,
    PRE,
    StepContext,
    StepFile,
    read_post_steps,
    read_step_file,
    read_steps,
)
from fastvla_core.models.lerobot.stored import read_stored, settings_folder
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer, load_text_tokenizer
from fastvla_core.models.lerobot.weights import Unused, save_weights, take_weights

TOKENIZER = "tokenizer"


class LeRobotFamily(ABC):
    """One policy type: subclasses say how its config, network and images are made.

    Attributes:
        table: LeRobot's names of the weights and ours.
    """

    table: ClassVar[KeyTable]

    @classmethod
    @abstractmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> Any:
        """Read config.json and the sizes that it leaves to other files."""

    @classmethod
    def planned_config(cls, data: Mapping[str, Any], *, folder: Path) -> Any:
        """The same as far as it decides sizes, without files that do not."""
        return cls.config(data, folder=folder, files=NO_LOCAL_FILES)

    @staticmethod
    @abstractmethod
    def model(config: Any) -> nn.Module:
        """The network with fresh weights."""

    @staticmethod
    @abstractmethod
    def images(config: Any) -> ImageStep:
        """What the network wants its images to be."""

    @classmethod
    def load_weights(cls, model: Any, config: LeRobotConfig, folder: Path) -> None:
        """Give a network that was built on "meta" the weights of a checkpoint.

        Raises:
            CheckpointError: files are missing or damaged, or do not fit the config.
            QuantError: quantised weights are damaged.
        """
        stored = read_stored(folder)
        model.unused = take_weights(
            model, stored, table=cls.table, dtype=config.dtype, source=folder
        )

    @classmethod
    def save_weights(cls, folder: Path, model: nn.Module) -> None:
        """Write the weights under LeRobot's names."""
        unused = getattr(model, "unused", Unused())
        save_weights(folder, model, unused, table=cls.table)

    @classmethod
    def save_config(cls, folder: Path, config: LeRobotConfig) -> None:
        """Write config.json as LeRobot reads it, and fastvla.json beside it."""
        write_json(folder / "config.json", config.to_dict())
        write_binding(folder, config.binding)

    @classmethod
    def load_processor(
        cls,
        folder: Path,
        config: LeRobotConfig,
        *,
        files: LocalFiles = NO_LOCAL_FILES,
        step_files: tuple[StepFile, StepFile] | None = None,
    ) -> LeRobotProcessor:
        """Read the processor files.

        Args:
            step_files: Take their place where they are given.
        Raises:
            CheckpointError: a file, a step or a statistic is missing or of another feature.
        """
        folder = settings_folder(folder)
        tokenizers: dict[str, TextTokenizer] = {}

        def tokenizer(name: str) -> TextTokenizer:
            if TOKENIZER not in tokenizers:
                found = cls.tokenizer_folder(name, folder, files)
                tokenizers[TOKENIZER] = load_text_tokenizer(found)
            return tokenizers[TOKENIZER]

        cls.check_image_statistics(config, folder)
        context = StepContext(
            state_dim=config.features.state_dim,
            action_dim=config.action_dim,
            cameras=config.features.cameras,
            tokenizer=tokenizer,
            extra=cls.extra_steps(folder, config, files, tokenizer),
        )
        step_files = step_files or cls.step_files(folder, config)
        before = read_steps(step_files[0], context)
        return cls.processor_class(config)(
            config,
            before=before,
            after=read_post_steps(step_files[1], context, before=before),
            images=cls.images(config),
            files=step_files,
            tokenizers=tokenizers,
        )

    @staticmethod
    def check_image_statistics(config: LeRobotConfig, folder: Path) -> None:
        """See that images are normalised in a way that the network knows.

        Raises:
            CheckpointError: they are not.
        """
        mode = config.normalization_mapping.get("VISUAL", "IDENTITY")
        if mode != "IDENTITY":
            raise CheckpointError(
                f"{folder / 'config.json'}: images are normalised by '{mode}'",
                mend="this network takes its images in [-1, 1], without statistics",
            )

    @classmethod
    def step_files(cls, folder: Path, config: LeRobotConfig) -> tuple[StepFile, StepFile]:
        """The processor files of a checkpoint, made where it is from before there were any.

        Raises:
            CheckpointError: a file is missing or damaged, or there are no statistics.
        """
        if (folder / f"{PRE}.json").is_file() or (folder / f"{POST}.json").is_file():
            return read_step_file(folder, PRE), read_step_file(folder, POST)
        return made_step_files(folder, config, cls.entries(config))

    @classmethod
    @abstractmethod
    def entries(cls, config: Any) -> list[Mapping[str, Any]]:
        """The steps in front of the network, as LeRobot's own processor file has them."""

    @classmethod
    def save_processor(cls, folder: Path, processor: LeRobotProcessor) -> None:
        """Write the processor files and the tokenizers."""
        for file in processor.files:
            file.write(folder)
        for name, tokenizer in processor.tokenizers.items():
            tokenizer.save(folder / name)

    @staticmethod
    def processor_class(config: Any) -> type[LeRobotProcessor]:
        """The class of the processor."""
        return LeRobotProcessor

    @classmethod
    def extra_steps(
        cls,
        folder: Path,
        config: Any,
        files: LocalFiles,
        tokenizer: Callable[[str], TextTokenizer],
    ) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """Readers of the steps that only this type has."""
        return {}

    @staticmethod
    def tokenizer_folder(name: str, folder: Path, files: LocalFiles) -> Path:
        """The folder of the instruction's tokenizer."""
        return find_part(
            name,
            folder,
            given=files.tokenizer,
            usual=(TOKENIZER,),
            wanted="tokenizer.json",
            source=f"{folder / PRE}.json: 'tokenizer_name'",
        )
