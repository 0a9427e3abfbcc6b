"""A disk of a few MiB, for what happens when it is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_IN_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def can_mount() -> bool:
    """Whether this machine lets us have such a disk."""
    try:
        result = subprocess.run(
            [*_IN_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0


def command_on_small_disk(*command: str, folder: Path, size: str = "12m") -> list[str]:
    """A command line that runs `command` with a disk of its own at `folder`."""
    return [*_IN_NAMESPACE, "sh", "-c", _MOUNT, "sh", size, str(folder), *command]


def python_on_small_disk(code: str, *, folder: Path, size: str = "12m") -> str:
    """What Python code prints that has `folder` (its argument) as a small disk."""
    command = command_on_small_disk(
        sys.executable, "-c", code, str(folder), folder=folder, size=size
    )
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout
