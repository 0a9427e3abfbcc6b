"""Training checkpoints: all that an exact resume needs, in safetensors and JSON, atomic."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from training.sharding import as_kept

KEPT = 2
_TENSORS, _STATE = "trainer.safetensors", "trainer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPoint:
    """One row of the loss curve."""

    step: int
    loss: float
    validation_loss: float | None
    samples_per_s: float


def changing_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: the whole state, or only the trained weights where some are frozen."""
    state = model.state_dict()
    parameters = dict(model.named_parameters())
    if all(p.requires_grad for p in parameters.values()):
        return state
    return {name: state[name] for name, p in parameters.items() if p.requires_grad}


def averaged_state(
    network: nn.Module, *, learner: nn.Module, ema: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state of a network with its averaged weights; shares memory with both.

    Args:
        learner: The network, or what it is a part of.
        ema: Averages, named as in the learner.
    """
    place = next(name for name, module in learner.named_modules() if module is network)
    before = f"{place}." if place else ""
    state: dict[str, Tensor] = network.state_dict()
    return state | {name: ema[before + name] for name in state if before + name in ema}


def training_tensors(
    model: nn.Module, ema: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """All that changes, named as in a checkpoint; shares memory with what it is taken from."""
    tensors = {f"model.{k}": v for k, v in changing_state(model).items()}
    tensors |= {f"ema.{k}": v for k, v in ema.items()}
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    # Weights that no loss has reached yet, such as a backbone's unread last layer, have no state.
    for index, state in optimizer.state_dict()["state"].items():
        flat = _flat(state)
        tensors |= {f"optimizer.{key}.{names[index]}": value for key, value in flat.items()}
    return tensors


def save_state(
    folder: Path,
    *,
    tensors: Mapping[str, Tensor],
    scaler: torch.amp.GradScaler,
    step: int,
    config: Mapping[str, Any],
    origin: Mapping[str, str],
    curve: list[LossPoint],
    save_policy: Callable[[Path], None],
) -> Path:
    """Write `folder/step_NNNNNNNN`, a usable policy in it, and drop all but the newest two.

    Args:
        tensors: Copies of the `training_tensors`, whole and on the host.
    """
    target = folder / f"step_{step:08d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(dict(tensors), partial / _TENSORS)
    curve_rows = [[p.step, p.loss, p.validation_loss, p.samples_per_s] for p in curve]
    state_json = {
        "step": step, "config": dict(config), "origin": dict(origin), "curve": curve_rows,
        "scaler": scaler.state_dict(),
    }  # fmt: skip
    (partial / _STATE).write_text(json.dumps(state_json))
    save_policy(partial / "policy")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    for old in sorted(folder.glob("step_*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest_state(folder: Path) -> Path | None:
    """The newest complete training checkpoint below `folder`, or None."""
    return next(iter(sorted(folder.glob("step_*"), reverse=True)), None)


def load_state(
    path: Path,
    *,
    model: nn.Module,
    ema: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: Mapping[str, Any],
    origin: Mapping[str, str],
) -> tuple[int, list[LossPoint]]:
    """Restore all that changes in place; returns the step and the loss curve.

    Args:
        origin: What the run began with, to its digest: its recordings, its policy's processor.

    Raises:
        CheckpointError: damaged, or written by a run with other settings or another origin.
    """
    try:
        tensors = load_file(path / _TENSORS)
        state = json.loads((path / _STATE).read_text())
        began, step, curve = state.get("origin", {}), int(state["step"]), state["curve"]
        written = dict(state["config"])
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: training state cannot be read: {error}",
            mend=f"delete {path} to resume from the checkpoint before it",
        ) from error
    changed = [k for k, v in config.items() if written.get(k) != v]
    if changed:
        key = changed[0]
        raise CheckpointError(
            f"{path}: was written with {key} = {written.get(key)!r}, now it is {config[key]!r}",
            mend="use the same settings to resume, or another --out to start anew",
        )
    # The weights would go on under statistics and a vocabulary that they were not trained with.
    other = [name for name, digest in origin.items() if began.get(name, digest) != digest]
    if other:
        raise CheckpointError(
            f"{path}: the run that wrote it began with other {' and '.join(other)}",
            mend="give the same bags and policy to resume, or another --out to start anew",
        )
    try:
        _load_changing(model, _part(tensors, "model."))
        for name, value in _part(tensors, "ema.").items():
            ema[name].copy_(as_kept(value, ema[name]))
        _restore_optimizer(optimizer, model, tensors)
        if scaler.is_enabled():
            scaler.load_state_dict(state["scaler"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: does not fit the policy: {error}", mend="use another --out to start anew"
        ) from error
    return step, [
        LossPoint(step=s, loss=loss, validation_loss=v, samples_per_s=r) for s, loss, v, r in curve
    ]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_changing(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = changing_state(model)
    missing = own.keys() - tensors.keys()
    if missing:
        raise KeyError(min(missing))
    kept = {name: as_kept(value, own.get(name, value)) for name, value in tensors.items()}
    found = model.load_state_dict(kept, strict=False)
    if found.unexpected_keys:
        raise KeyError(found.unexpected_keys[0])


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    state = optimizer.state_dict()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    stored: dict[str, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        kind, _, name = key.partition(".")
        # Beside what is of a weight's shape there is the count of steps.
        kept = name in trained and trained[name].shape == value.shape
        stored.setdefault(name, {})[kind] = as_kept(value, trained[name]) if kept else value
    if not stored:
        raise KeyError("optimizer.*")
    for index, name in enumerate(trained):
        if name in stored:
            state["state"][index] = _nested(stored[name])
    optimizer.load_state_dict(state)


def _flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors and numbers of an optimiser's state; 8-bit ones keep their scales one deeper."""
    flat: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value if isinstance(value, Tensor) else torch.as_tensor(value)
    return flat


def _nested(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split("/")
        inner = state
        for part in path:
            inner = inner.setdefault(part, {})
        # Torch counts steps in tensors, bitsandbytes in whole numbers.
        inner[last] = int(value) if value.dtype == torch.int64 and not value.ndim else value
    return state
