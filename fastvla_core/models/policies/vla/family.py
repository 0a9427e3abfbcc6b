"""What `FastVLA` needs to know of composed policies.

A checkpoint holds config.json, model.safetensors (fusion and heads), the processor files, and in
`backbone/` a vision-language model that Transformers loads by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import VLMBackbone
from fastvla_core.models.checkpoint import load_weights, read_tensors, write_json, write_tensors
from fastvla_core.models.heads.fast import FastHead
from fastvla_core.models.heads.ngram_draft import NgramDraft, load_ngram_draft
from fastvla_core.models.lerobot.fast_tokenizer import FastTokenizer, load_fast_tokenizer
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles, find_part
from fastvla_core.models.policies.flow_vla.processor_files import load_statistics, save_steps
from fastvla_core.models.policies.vla.config import (
    BACKBONE,
    FAST_TOKENIZER,
    VLAConfig,
    read_vla_config,
)
from fastvla_core.models.policies.vla.model import VLA
from fastvla_core.models.policies.vla.processor import VLAProcessor
from fastvla_core.models.statistics import Statistics
from fastvla_core.quant import prepare_for_state

_WEIGHTS = "model.safetensors"


class VLAFamily:
    """Config, network and processor of type "fastvla_vla"."""

    @staticmethod
    def config(data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> VLAConfig:
        """See `read_vla_config`."""
        return read_vla_config(data, folder=folder, action_tokenizer=files.action_tokenizer)

    @staticmethod
    def model(config: VLAConfig) -> VLA:
        """The network. A new policy's backbone has its published weights, unless it is on "meta".

        Raises:
            CheckpointError: a part is not there, or the parts do not go together.
            DependencyError: Transformers is not installed.
        """
        device = torch.get_default_device()
        if config.folder is not None or device.type == "meta":
            place = config.backbone if config.folder is None else config.folder / BACKBONE
            # What is on "meta" cannot be moved to another device.
            backbone = VLMBackbone.from_config(place, device=device)
        else:
            # What is trained needs all its digits; what is not may stay as it is stored.
            dtype = None if "all" in config.frozen else torch.float32
            backbone = VLMBackbone.from_pretrained(config.backbone, dtype=dtype)
        return VLA(
            config,
            backbone=cast(TransformersBackbone, backbone),
            action_tokenizer=_action_tokenizer(config),
        )

    @staticmethod
    def new_tokenizer(config: VLAConfig, texts: Sequence[str]) -> None:
        """None: the backbone has its own."""

    @staticmethod
    def processor(
        config: VLAConfig, *, statistics: Statistics, tokenizer: object = None
    ) -> VLAProcessor:
        """A processor for fresh statistics; the tokenizer is the backbone's."""
        return VLAProcessor(config, statistics=statistics)

    @staticmethod
    def load_weights(model: VLA, config: VLAConfig, folder: Path) -> None:
        """Give a network that was built on "meta" its weights.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the config.
            QuantError: quantised weights are damaged.
        """
        source = folder / _WEIGHTS
        tensors, parts = read_tensors(source), model.own_parts
        prepare_for_state(parts, tensors)
        load_weights(parts, tensors, source=source)
        model.backbone = cast(TransformersBackbone, VLMBackbone.from_pretrained(folder / BACKBONE))
        model.freeze()
        if isinstance(model.head, FastHead):
            model.head.draft = load_ngram_draft(folder)

    @staticmethod
    def save_weights(folder: Path, model: VLA) -> None:
        """Write model.safetensors, `backbone/`, and the draft of a FAST head where there is one."""
        write_tensors(folder / _WEIGHTS, model.own_parts.state_dict())
        model.backbone.save_pretrained(folder / BACKBONE)
        if isinstance(model.head, FastHead) and isinstance(model.head.draft, NgramDraft):
            model.head.draft.save(folder)
        if model.action_tokenizer is not None:
            model.action_tokenizer.save(folder / FAST_TOKENIZER)

    @staticmethod
    def save_config(folder: Path, config: VLAConfig) -> None:
        """Write config.json, with the FAST tokenizer that is saved beside it."""
        data = config.to_dict()
        for key in ("head", "auxiliary_head"):
            if data[key] and "action_tokenizer" in data[key]:
                data[key] = {**data[key], "action_tokenizer": FAST_TOKENIZER}
        write_json(folder / "config.json", data)

    @staticmethod
    def load_processor(
        folder: Path, config: VLAConfig, *, files: LocalFiles = NO_LOCAL_FILES
    ) -> VLAProcessor:
        """Read the statistics.

        Raises:
            CheckpointError: a file or a statistic is missing, or statistics are of another feature.
        """
        return VLAProcessor(config, statistics=load_statistics(folder, config))

    @staticmethod
    def save_processor(folder: Path, processor: VLAProcessor) -> None:
        """Write the processor files."""
        save_steps(folder, processor)


def _action_tokenizer(config: VLAConfig) -> FastTokenizer | None:
    name = config.action_tokenizer
    if name is None:
        return None
    # A new policy's may be named by a path from here.
    folder = config.folder or Path()
    found = find_part(
        name,
        folder,
        given=config.local_action_tokenizer,
        usual=(FAST_TOKENIZER,),
        wanted="tokenizer.json",
        source=f"{folder / 'config.json'}: 'action_tokenizer'",
    )
    return load_fast_tokenizer(found)
