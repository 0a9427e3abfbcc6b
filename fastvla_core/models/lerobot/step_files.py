"""policy_preprocessor.json and policy_postprocessor.json: LeRobot's steps to ours, and back.

The files are kept as they were read: what LeRobot wrote is what it gets again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import read_json, read_tensors, write_json, write_tensors
from fastvla_core.models.lerobot import steps
from fastvla_core.models.lerobot.features import ACTION_KEY, STATE_KEY
from fastvla_core.models.lerobot.normalization import Affine, affine
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer
from fastvla_core.models.lerobot.transition import Step

PRE = "policy_preprocessor"
POST = "policy_postprocessor"
_COPY_AGAIN = "copy or download the checkpoint again, completely"
_IDLE = ("to_batch_processor", "device_processor")
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class StepFile:
    """One of the two files, with the tensors that its steps name.

    Attributes:
        name: `PRE` or `POST`.
        path: Where it was read; for messages.
        data: Its content.
        states: File names to tensors.
    """

    name: str
    path: Path
    data: Mapping[str, Any]
    states: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The steps as the file has them.

        Raises:
            CheckpointError: they are not as LeRobot writes them.
        """
        found = self.data.get("steps")
        if not isinstance(found, list) or not all(isinstance(s, Mapping) for s in found):
            raise CheckpointError(f"{self.path}: 'steps' is no list of steps", mend=_COPY_AGAIN)
        return found

    def write(self, folder: Path) -> None:
        """Write the file and its tensors into another folder."""
        write_json(folder / f"{self.name}.json", self.data)
        for name, tensors in self.states.items():
            write_tensors(folder / name, tensors)


def read_step_file(folder: Path, name: str) -> StepFile:
    """Read one of the two files and every state file that it names.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    path = folder / f"{name}.json"
    file = StepFile(name, path, read_json(path))
    named = [entry["state_file"] for entry in file.entries if entry.get("state_file")]
    return StepFile(name, path, file.data, {str(n): read_tensors(folder / str(n)) for n in named})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What steps need to know of the policy.

    Attributes:
        state_dim, action_dim: Real dimensions.
        cameras: Feature keys of the cameras.
        tokenizer: Finds the tokenizer of a step by the name that the step gives it.
        extra: Readers of steps that only one policy has, by registry name.
    """

    state_dim: int
    action_dim: int
    tokenizer: Callable[[str], TextTokenizer]
    cameras: tuple[str, ...] = ()
    extra: Mapping[str, Callable[[Mapping[str, Any]], Step]] = field(default_factory=dict)


def read_steps(file: StepFile, context: StepContext) -> tuple[Step, ...]:
    """The steps of a file, in order.

    Raises:
        CheckpointError: a step is unknown, or lacks what it needs.
    """
    return tuple(_step(entry, file, context) for entry in file.entries)


def read_post_steps(
    file: StepFile, context: StepContext, *, before: tuple[Step, ...]
) -> tuple[Step, ...]:
    """The steps behind the network; `before` are those in front of it.

    Raises:
        CheckpointError: a step is unknown, lacks what it needs, or has no partner in front.
    """
    found: list[Step] = []
    for entry in file.entries:
        if entry.get("registry_name") != "absolute_actions_processor":
            found.append(_step(entry, file, context))
        elif _options(entry).get("enabled"):
            relative = [step for step in before if isinstance(step, steps.RelativeActions)]
            if not relative:
                raise CheckpointError(
                    f"{file.path}: actions become absolute, but {PRE}.json makes none relative",
                    mend=_COPY_AGAIN,
                )
            found.append(steps.AbsoluteActions(relative[0]))
    return tuple(found)


def _step(entry: Mapping[str, Any], file: StepFile, context: StepContext) -> Step:
    name, options = entry.get("registry_name"), _options(entry)
    if name in context.extra:
        return context.extra[str(name)](options)
    if name in _IDLE:
        return steps.Nothing()
    if name == "rename_observations_processor":
        return steps.RenameCameras(dict(options.get("rename_map") or {}))
    if name in ("smolvla_new_line_processor", "pi0_new_line_processor"):
        return steps.AppendNewline()
    if name == "pi05_prepare_state_tokenizer_processor_step":
        return steps.StateInPrompt("Action: ")
    if name == "pi0_fast_prepare_state_tokenizer_processor_step":
        return steps.StateInPrompt("")
    if name == "tokenizer_processor":
        return _tokenize(options, file, context)
    return _action_step(str(name), entry, file, context)


def _action_step(name: str, entry: Mapping[str, Any], file: StepFile, context: StepContext) -> Step:
    options = _options(entry)
    if name == "relative_actions_processor":
        if not options.get("enabled"):
            return steps.Nothing()
        return steps.RelativeActions(relative_columns(options, context.action_dim))
    if name == "normalizer_processor":
        colours = {key: _affine(key, "VISUAL", _COLOURS, entry, file) for key in context.cameras}
        return steps.Normalize(
            state=_affine(STATE_KEY, "STATE", context.state_dim, entry, file),
            action=_affine(ACTION_KEY, "ACTION", context.action_dim, entry, file),
            images={key: scale for key, scale in colours.items() if scale is not None},
        )
    if name == "unnormalizer_processor":
        return steps.Unnormalize(_affine(ACTION_KEY, "ACTION", context.action_dim, entry, file))
    raise CheckpointError(
        f"{file.path}: the step '{name}' is not known",
        mend="it would be skipped silently otherwise: use a checkpoint without it",
    )


def relative_columns(options: Mapping[str, Any], dim: int) -> Tensor:
    """Which of `dim` action columns are relative: those whose name holds no excluded word."""
    words = [str(word).lower() for word in options.get("exclude_joints") or () if word]
    names = [str(name).lower() for name in options.get("action_names") or ()][:dim]
    named = [not any(word in name for word in words) for name in names]
    return torch.tensor(named + [True] * (dim - len(named)))


def _affine(
    key: str, kind: str, dim: int, entry: Mapping[str, Any], file: StepFile
) -> Affine | None:
    options = _options(entry)
    modes, features = dict(options.get("norm_map") or {}), dict(options.get("features") or {})
    mode = str(modes.get(kind, "IDENTITY"))
    if mode == "IDENTITY":
        return None
    if key not in features:
        if key == STATE_KEY and not dim:
            return None
        raise CheckpointError(
            f"{file.path}: '{entry.get('registry_name')}' has no feature '{key}'; it has "
            f"{', '.join(features) or 'none'}",
            mend="its statistics are of other features: use the files that belong to config.json",
        )
    name = entry.get("state_file")
    if not name:
        raise CheckpointError(
            f"{file.path}: step '{entry.get('registry_name')}' names no state_file, so there are "
            "no statistics",
            mend="save the policy with its statistics",
        )
    own = {
        # Those of images have one value per colour, [3, 1, 1].
        flat.rpartition(".")[2]: tensor.flatten() if kind == "VISUAL" else tensor
        for flat, tensor in file.states[str(name)].items()
        if flat.rpartition(".")[0] == key
    }
    source = str(file.path.parent / str(name))
    eps = float(options.get("eps", 1e-8))
    return affine(mode, own, feature=key, dim=dim, eps=eps, source=source)


def _tokenize(options: Mapping[str, Any], file: StepFile, context: StepContext) -> Step:
    if options.get("padding_side", "right") != "right":
        raise CheckpointError(
            f"{file.path}: prompts are padded on the {options['padding_side']}",
            mend="the networks that are known here were trained with padding on the right",
        )
    length = options.get("max_length")
    if not isinstance(length, int) or length < 1:
        raise CheckpointError(f"{file.path}: 'max_length' is {length!r}", mend=_COPY_AGAIN)
    return steps.Tokenize(
        tokenizer=context.tokenizer(str(options.get("tokenizer_name") or "")),
        max_length=length,
        fill=options.get("padding", "max_length") == "max_length",
        cut=bool(options.get("truncation", True)),
    )


def _options(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    options = entry.get("config")
    return options if isinstance(options, Mapping) else {}
