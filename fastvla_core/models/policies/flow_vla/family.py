"""What `FastVLA` needs to know of the flow policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastvla_core.models.checkpoint import (
    load_weights,
    read_tensors,
    write_json,
    write_tensors,
)
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles
from fastvla_core.models.lerobot.stored import (
    ADAPTER_CONFIG,
    SINGLE,
    read_stored,
    settings_folder,
)
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, config_from_dict
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.processor import FlowVLAProcessor
from fastvla_core.models.policies.flow_vla.processor_files import load_processor, save_processor
from fastvla_core.models.statistics import Statistics
from fastvla_core.models.tokenizer import InstructionTokenizer, train_tokenizer
from fastvla_core.quant import prepare_for_state


class FlowVLAFamily:
    """Config, network and processor of type "fastvla_flow"."""

    @staticmethod
    def config(data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> FlowVLAConfig:
        """See `config_from_dict`; nothing is outside of the folder."""
        return config_from_dict(data, source=str(folder / "config.json"))

    @staticmethod
    def model(config: FlowVLAConfig) -> FlowVLA:
        """The network with fresh weights."""
        return FlowVLA(config)

    @staticmethod
    def new_tokenizer(config: FlowVLAConfig, texts: Sequence[str]) -> Tokenizer:
        """A vocabulary for a new policy; see `train_tokenizer`."""
        return train_tokenizer(texts, vocab_size=config.vocab_size)

    @staticmethod
    def processor(
        config: FlowVLAConfig, *, statistics: Statistics, tokenizer: Tokenizer
    ) -> FlowVLAProcessor:
        """A processor for fresh statistics and a fresh tokenizer.

        Raises:
            CheckpointError: the tokenizer has more entries than the config's vocabulary.
        """
        instructions = InstructionTokenizer(tokenizer, max_length=config.tokenizer_max_length)
        return FlowVLAProcessor(config, statistics=statistics, tokenizer=instructions)

    @staticmethod
    def load_weights(model: FlowVLA, config: FlowVLAConfig, folder: Path) -> None:
        """Give a network that was built on "meta" the weights of FOLDER/model.safetensors.

        An adapter is added to the weights of the policy that it names.

        Raises:
            CheckpointError: the file is missing, damaged, or does not fit the config.
            QuantError: quantised weights are damaged.
        """
        source = folder / SINGLE
        adapts = (folder / ADAPTER_CONFIG).is_file()
        tensors = read_stored(folder) if adapts else read_tensors(source)
        prepare_for_state(model, tensors)
        load_weights(model, tensors, source=source)

    @staticmethod
    def save_weights(folder: Path, model: FlowVLA) -> None:
        """Write FOLDER/model.safetensors."""
        write_tensors(folder / SINGLE, model.state_dict())

    @staticmethod
    def save_config(folder: Path, config: FlowVLAConfig) -> None:
        """Write FOLDER/config.json."""
        write_json(folder / "config.json", config.to_dict())

    @staticmethod
    def load_processor(
        folder: Path, config: FlowVLAConfig, *, files: LocalFiles = NO_LOCAL_FILES
    ) -> FlowVLAProcessor:
        """See `processor_files.load_processor`."""
        return load_processor(settings_folder(folder), config)

    @staticmethod
    def save_processor(folder: Path, processor: FlowVLAProcessor) -> None:
        """See `processor_files.save_processor`."""
        save_processor(folder, processor)
