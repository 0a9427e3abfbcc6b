"""Recipes: every number of a training run in one YAML file, parsed into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fastvla_core.errors import DatasetError
from fastvla_core.resources import share_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """What the scripted expert records before training; no bags are needed then.

    Attributes:
        episodes: Episodes per task kind.
        seed: First scene seed; evaluation seeds must lie elsewhere.
    """

    episodes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """A second round: the trained policy drives, the expert takes over, training goes on.

    Attributes:
        episodes: Episodes per task kind.
        steps: Further training steps, on all recordings.
        learning_rate: Of those steps.
    """

    episodes: Mapping[str, int]
    seed: int
    steps: int
    learning_rate: float = 3e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides the course of training.

    Attributes:
        ema_decay: Decay of the averaged weights that are saved; 0 saves the raw ones.
        camera_dropout: Chance per sample that one camera is hidden.
        precision: bf16 runs the network in autocast; the weights stay fp32.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    final_learning_rate: float = 2e-5
    warmup_steps: int = 100
    weight_decay: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.98
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    camera_dropout: float = 0.1
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = 0
    validation: float = 0.02
    checkpoint_every: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run from a robot contract to a policy.

    Attributes:
        policy: A checkpoint or shipped name to start from, or a preset of `models` for a new one.
        new: Whether `policy` names a preset whose weights are drawn anew.
    """

    name: str
    contract: str
    policy: str
    new: bool
    rate_hz: float
    training: TrainConfig
    demonstrations: Demonstrations = field(default_factory=Demonstrations)
    corrections: Corrections | None = None


def load_recipe(path_or_name: str) -> Recipe:
    """Load FILE.yaml, or a shipped recipe by name.

    Raises:
        DatasetError: the file is missing, or has an unknown key or a value of the wrong type.
    """
    path = Path(path_or_name)
    if not path.suffix:
        path = share_path(f"config/recipes/{path_or_name}.yaml")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    return _build(Recipe, data, str(path))


def _build(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise DatasetError(f"{where}: expected keys and values, got {data!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise DatasetError(
            f"{where}: '{unknown[0]}' is not a known key", mend=f"known: {', '.join(hints)}"
        )
    values = {name: _value(hints[name], value, where, name) for name, value in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise DatasetError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str, name: str) -> Any:
    if isinstance(hint, types.UnionType) and value is not None:
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{where}: {name}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise DatasetError(f"{where}: '{name}' is {value!r}, expected {hint.__name__}")
    return value
