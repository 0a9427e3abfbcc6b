"""Where the parts of a checkpoint are that LeRobot names by their place on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastvla_core.errors import CheckpointError
from fastvla_core.models.hub import find_hub_files

ARCHITECTURE = "architecture.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFiles:
    """Local folders and files that take the place of what a checkpoint names.

    Attributes:
        vlm: Folder of the vision-language model's config.json (SmolVLA).
        tokenizer: Folder of the instruction's tokenizer.json.
        action_tokenizer: Folder of the FAST tokenizer.
        architecture: File with the sizes of a pi policy that is not of the published ones.
    """

    vlm: Path | None = None
    tokenizer: Path | None = None
    action_tokenizer: Path | None = None
    architecture: Path | None = None


NO_LOCAL_FILES = LocalFiles()


def find_part(
    name: str,
    folder: Path,
    *,
    given: Path | None,
    usual: tuple[str, ...],
    wanted: str,
    source: str,
) -> Path:
    """The folder that holds the file `wanted` of a part called `name`.

    Looked for in this order: `given`, the folder `name` beside the checkpoint's files, the
    folders `usual` there, the Hub's cache, the Hub.

    Raises:
        CheckpointError: it is nowhere.
    """
    if given is not None:
        if not (given / wanted).is_file():
            raise CheckpointError(f"{given} holds no {wanted}", mend="give the folder of that file")
        return given
    for candidate in (name, name.rpartition("/")[2], *usual):
        if candidate and (folder / candidate / wanted).is_file():
            return folder / candidate
    if "/" in name and not name.startswith((".", "/")):
        return find_hub_files(name, (wanted, "*config.json"), wanted=wanted)
    raise CheckpointError(
        f"{source} names '{name}', and neither {folder / name} nor "
        f"{', '.join(str(folder / u) for u in usual)} holds {wanted}",
        mend=f"copy it into {folder / usual[0]}, or give its folder",
    )


def architecture_file(folder: Path, given: Path | None) -> Path | None:
    """The sizes beside a checkpoint: in its folder, or in the folder above it."""
    if given is not None:
        if not given.is_file():
            raise CheckpointError(f"{given} is no file", mend=f"give the path of {ARCHITECTURE}")
        return given
    candidates = (folder / ARCHITECTURE, folder.resolve().parent / ARCHITECTURE)
    return next((path for path in candidates if path.is_file()), None)
