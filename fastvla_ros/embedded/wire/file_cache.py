"""What takes long to work out and follows from installed files alone, kept in the user's cache.

Values are JSON: reading a damaged or foreign file cannot do more than fail.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

# Raised when the code that makes the values changes what they are.
FORMAT = 2


class FileCache:
    """Named values in a folder that belongs to one state of the installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def made_from(cls, *packages: str, files: Iterable[Path]) -> FileCache:
        """The cache of values that are made from packages and files.

        Another version of a package and another text of a file lead elsewhere.

        Raises:
            ModuleNotFoundError: a package is not installed.
        """
        digest = sha256(f"{FORMAT}".encode())
        for path in (path for name in packages for path in _python_files(name)):
            state = path.stat()
            digest.update(f"{path}\n{state.st_size} {state.st_mtime_ns}\n".encode())
        for path in files:
            digest.update(f"{'/'.join(path.parts[-3:])}\n".encode() + path.read_bytes())
        return cls(_base_folder() / "fastvla" / f"interfaces-{digest.hexdigest()[:32]}")

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of a name; made, and kept, when there is none that can be read.

        Args:
            make: Its result is given back as JSON gives it: tuples come as lists.
        """
        path = self._folder / f"{name}.json"
        # Whatever is wrong with the file, it is made again.
        with contextlib.suppress(OSError, ValueError):
            return json.loads(path.read_bytes())
        text = json.dumps(make(), separators=(",", ":"))
        # A home that cannot be written costs time at each start, nothing else.
        with contextlib.suppress(OSError):
            write_whole(path, text)
        return json.loads(text)


def write_whole(path: Path, text: str) -> None:
    """Write a file that other processes see whole or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    # Late: most starts write nothing.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _base_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        # A user without a home: nothing can be kept below a file.
        return Path(os.devnull)


def _python_files(package: str) -> list[Path]:
    """The modules right inside a package: an upgrade writes them anew."""
    # Not `find_spec(package)`: that would import what the package is in.
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = sorted(path for f in folders for path in Path(f, *rest).glob("*.py"))
    if not files:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    return files
