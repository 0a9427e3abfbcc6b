"""Stored cases: inputs, intermediate values and outputs of a reference implementation.

A folder of one policy holds `checkpoint/`, `golden.json` and `golden.safetensors`; a folder of
several holds one such folder for each. A tensor is called <case>/<group>/<name>: `raw` are inputs,
`pre` and `pre_train` come out of the processors, `model`, `mid`, `out` and `train` out of the
network.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, read_tensors
from fastvla_core.models.lerobot.transition import Transition

_INDEX = "golden.json"
_TENSORS = "golden.safetensors"
_PADDING_MASK = "_padding_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One stored case.

    Attributes:
        cameras: Feature keys of the cameras that give an image.
        tasks, prompts: Instructions, and what the processors made of them.
        tensors: Group and name to values.
    """

    name: str
    cameras: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    @property
    def transition(self) -> Transition:
        """The raw inputs."""
        masks = {
            name.removeprefix("raw/").removesuffix(_PADDING_MASK): tensor
            for name, tensor in self.tensors.items()
            if name.startswith("raw/") and name.endswith(_PADDING_MASK)
        }
        return dataclasses.replace(
            self._moment("raw"),
            image_masks=masks,
            action=self.tensors.get("raw/action"),
            earlier=self._earlier(),
        )

    def _earlier(self) -> tuple[Transition, ...]:
        """Those `raw/earlier_1`, `raw/earlier_2` and so on steps before, oldest first."""
        groups = (f"raw/earlier_{step}" for step in itertools.count(1))
        there = itertools.takewhile(lambda g: f"{g}/observation.state" in self.tensors, groups)
        return tuple(map(self._moment, there))[::-1]

    def _moment(self, group: str) -> Transition:
        return Transition(
            images={key: self.tensors[f"{group}/{key}"] for key in self.cameras},
            state=self.tensors.get(f"{group}/observation.state"),
            tasks=self.tasks,
        )


def find_case_folders(folder: Path) -> list[Path]:
    """The folders of single policies in `folder`, itself included.

    Raises:
        CheckpointError: there are none.
    """
    candidates = [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]
    found = [path for path in candidates if (path / _INDEX).is_file()]
    if not found:
        raise CheckpointError(
            f"{folder} holds no stored cases: neither {_INDEX} nor folders with one",
            mend="give a folder laid out as docs/policies/parity.md says",
        )
    return found


def read_cases(folder: Path) -> list[Case]:
    """The cases of one policy.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    source = folder / _INDEX
    entries = read_json(source).get("cases")
    tensors = read_tensors(folder / _TENSORS)
    listed = list(entries.values()) if isinstance(entries, dict) else entries
    try:
        return [_case(entry, tensors) for entry in listed or ()]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source} is no list of cases: {error!r}", mend="copy the folder again, completely"
        ) from error


def _case(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Case:
    prefix = f"{entry['name']}/"
    return Case(
        name=str(entry["name"]),
        cameras=tuple(entry["cameras_present"]),
        tasks=tuple(entry["task"]),
        prompts=tuple(entry.get("pre_task", ())),
        tensors={
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        },
    )
