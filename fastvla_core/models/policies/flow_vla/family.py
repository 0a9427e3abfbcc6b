"""What `FastVLA` needs to know of the flow policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, config_from_dict
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.processor import FlowVLAProcessor
from fastvla_core.models.policies.flow_vla.processor_files import load_processor, save_processor


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
    def load_processor(folder: Path, config: FlowVLAConfig) -> FlowVLAProcessor:
        """See `processor_files.load_processor`."""
        return load_processor(folder, config)

    @staticmethod
    def save_processor(folder: Path, processor: FlowVLAProcessor) -> None:
        """See `processor_files.save_processor`."""
        save_processor(folder, processor)
