"""Where a policy's files are: a folder, a shipped name, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from fastvla_core.errors import CheckpointError, FastVLAError
from fastvla_core.resources import share_path

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Never pickles: a checkpoint must not be able to run code.
_FILES = ("*.json", "*.safetensors", "*.txt", "tokenizer/*", "*.md")


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The local folder of a policy; downloads it where it is a Hub repository.

    Args:
        path_or_name: A folder, a shipped name such as "nano", or "owner/repository".
    Raises:
        CheckpointError: there is no such policy, or the Hub cannot be reached.
    """
    path, name = Path(path_or_name), str(path_or_name)
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{path} is a file", mend="give the folder that holds config.json")
    if re.fullmatch(r"[\w.-]+", name):
        try:
            return share_path(f"config/policies/{name}")
        except FastVLAError as error:
            raise CheckpointError(
                f"there is no shipped policy '{name}' and no folder of that name",
                mend="give a folder, a name that `fastvla models list` shows, or owner/repository",
            ) from error
    if isinstance(path_or_name, str) and _REPO_ID.fullmatch(name):
        return _download(name)
    raise CheckpointError(f"{path} does not exist", mend="check the path")


def find_hub_files(repo_id: str, patterns: tuple[str, ...], *, wanted: str) -> Path:
    """The local folder of some files of a Hub repository, downloaded where they are not yet.

    Raises:
        CheckpointError: the repository cannot be had, or lacks the file `wanted`.
    """
    folder = _download(repo_id, patterns)
    if not (folder / wanted).is_file():
        raise CheckpointError(f"the Hub repository '{repo_id}' has no {wanted}")
    return folder


def _download(repo_id: str, patterns: tuple[str, ...] = _FILES) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, HfHubHTTPError):
            raise CheckpointError(
                f"'{repo_id}' is no folder here, and the Hugging Face Hub refused it: {error}",
                mend="check the name, and log in with `hf auth login` for private repositories",
            ) from error
        raise CheckpointError(
            f"'{repo_id}' is no folder here, is not in the local cache, and the Hugging Face Hub "
            "cannot be reached (or HF_HUB_OFFLINE is set)",
            mend="download it once while online, or give the path of a folder",
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"'{repo_id}' is no repository name: {error}") from error
