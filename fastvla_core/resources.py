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
