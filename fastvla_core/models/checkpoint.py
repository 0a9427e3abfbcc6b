"""Reading and writing the files of a checkpoint, with errors that name the file and the mend."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError

_COPY_AGAIN = "copy or download the checkpoint again, completely"
_DAMAGE = (safetensors.SafetensorError, OSError, ValueError)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file is missing, or is no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", mend=_COPY_AGAIN) from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", mend=_COPY_AGAIN) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object", mend=_COPY_AGAIN)
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write with two blanks of indent and a newline at the end, keys in their order."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_tensors(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    _require_file(path)
    try:
        tensors = load_file(path, device=device)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    # The file's own memory is not aligned, and matrix products round differently there; it also
    # must not change below a policy when the file does.
    return {name: tensor.clone() for name, tensor in tensors.items()}


def tensor_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor of a safetensors file; the values are not read.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}


def not_finite(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file that hold NaN or infinity; one is read at a time.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    with _opened(path) as file:
        return [
            name
            for name in file.keys()  # noqa: SIM118
            if not bool(torch.isfinite(file.get_tensor(name)).all())
        ]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", mend=_COPY_AGAIN)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"{path} ({size} bytes) is truncated or damaged: {error}", mend=_COPY_AGAIN
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that LeRobot and Transformers accept."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})
    # The library makes files that only the owner can read.
    path.chmod(0o644)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Make the tensors the module's own parameters and buffers; nothing is copied or converted.

    Raises:
        CheckpointError: names or shapes differ; lists up to five of them.
    """
    mend = "use the config.json that belongs to these weights"
    try:
        found = module.load_state_dict(dict(tensors), strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit config.json: {error}", mend=mend) from error
    problems = [f"'{name}' is missing" for name in found.missing_keys]
    problems += [f"'{name}' is not part of the model" for name in found.unexpected_keys]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(
            f"{source}: {len(problems)} tensors do not fit config.json: {shown}", mend=mend
        )


@contextmanager
def written_atomically(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well.

    After an error `folder` is as it was before. Files of `folder` that the block does not write,
    such as a model card, stay.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        # mkdtemp makes folders that only the owner can read.
        temporary.chmod(0o755)
        yield temporary
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(new, folder)
        return
    for entry in folder.iterdir():
        if not (new / entry.name).exists():
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, new / entry.name)
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)
