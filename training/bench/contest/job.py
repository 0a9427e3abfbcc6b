"""What the process of a contender is told, and the inputs that all of them get."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One contender's task.

    Attributes:
        checkpoint: Folder of config.json and model.safetensors.
        inputs: What `save_inputs` wrote.
        device: "cpu" or "cuda".
        threads: Of the processor.
        options: What kind of contender it is; see the modules that build them.
    """

    checkpoint: str
    inputs: str
    device: str
    threads: int
    options: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line; `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def save_inputs(path: Path, batches: list[Batch]) -> None:
    """Write batches of one observation each, with their noise."""
    save_file({name: torch.cat([b[name] for b in batches]) for name in batches[0]}, path)


def load_inputs(path: str | Path, *, device: str) -> list[Batch]:
    """Read what `save_inputs` wrote."""
    stacked = load_file(path, device=device)
    count = len(next(iter(stacked.values())))
    return [{name: t[i : i + 1].clone() for name, t in stacked.items()} for i in range(count)]
