"""Where the shipped files (contracts, recipes, the nano policy, interfaces) are found."""

from __future__ import annotations

import sys
from pathlib import Path

from fastvla_core.errors import FastVLAError


def share_roots() -> list[Path]:
    """Folders that may hold shipped files: the source checkout, then installed ones."""
    package = Path(__file__).resolve().parent
    roots = [package.parent] if (package.parent / "package.xml").is_file() else []
    roots += [parent / "share" / "fastvla" for parent in package.parents]
    roots.append(Path(sys.prefix) / "share" / "fastvla")
    return roots


def file_or_shipped(
    path_or_name: str | Path, *, folder: str, what: str, error: type[FastVLAError]
) -> Path:
    """The path as given, or that of a shipped .yaml file where only its name is given.

    Args:
        folder: Where the shipped ones are, such as `config/robots`.
        what: What they are called in the message.
        error: Raised when no shipped one has that name.
    """
    path = Path(path_or_name)
    if path.suffix or path.is_file():
        return path
    try:
        return share_path(f"{folder}/{path_or_name}.yaml")
    except FastVLAError as missing:
        raise error(
            f"there is no shipped {what} '{path_or_name}'",
            mend=f"give the path of a .yaml file, or a name from {folder}",
        ) from missing


def share_path(relative: str) -> Path:
    """The absolute path of a shipped file or folder.

    Raises:
        FastVLAError: no installation holds it.
    """
    for root in share_roots():
        candidate = root / relative
        if candidate.exists():
            return candidate
    raise FastVLAError(
        f"'{relative}' is not part of this installation (looked below {sys.prefix})",
        mend="reinstall with `pip install .` from a complete checkout",
    )
