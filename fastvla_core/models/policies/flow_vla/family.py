"""What `FastVLA` needs to know of the flow policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, config_from_dict
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.processor import FlowVLAProcessor
from fastvla_core.models.policies.flow_vla.processor_files import load_processor, save_processor
from fastvla_core.models.statistics import Statistics
from fastvla_core.models.tokenizer import InstructionTokenizer


class FlowVLAFamily:
    """Config, network and processor of type "fastvla_flow"."""

    @staticmethod
    def config(data: Mapping[str, Any], *, source: str) -> FlowVLAConfig:
        """See `config_from_dict`."""
        return config_from_dict(data, source=source)

    @staticmethod
    def model(config: FlowVLAConfig) -> FlowVLA:
        """The network with fresh weights."""
        return FlowVLA(config)

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
    def load_processor(folder: Path, config: FlowVLAConfig) -> FlowVLAProcessor:
        """See `processor_files.load_processor`."""
        return load_processor(folder, config)

    @staticmethod
    def save_processor(folder: Path, processor: FlowVLAProcessor) -> None:
        """See `processor_files.save_processor`."""
        save_processor(folder, processor)
