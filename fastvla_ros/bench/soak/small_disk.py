"""A real disk of a few MiB that can be filled: memory that the kernel mounts as one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from fastvla_core.bags.spare_file import is_full
from fastvla_core.errors import FastVLAError

_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
# It lives for as long as somebody holds the other end of its input.
_SCRIPT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat'
# To the last page, in few calls.
_STEPS = (16 << 20, 1 << 20, 4096)


class SmallDisk:
    """A context manager; other processes of this user reach it at `path`.

    Raises:
        FastVLAError: this system lets nobody mount anything.
    """

    def __init__(self, mount_point: Path, *, mib: int) -> None:
        mount_point.mkdir(parents=True, exist_ok=True)
        command = [*_NAMESPACE, "sh", "-c", _SCRIPT, "sh", f"{mib}m", str(mount_point)]
        try:
            self._holder = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _no_disk(str(error)) from error
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.close()
            raise _no_disk("user namespaces or mounts are not allowed")
        # The mount is in a namespace of its own, which the kernel shows here.
        self.path = Path(f"/proc/{self._holder.pid}/root{mount_point}")
        self._ballast = self.path / "ballast"

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the disk away with everything on it."""
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            pipe.close()
        self._holder.wait()

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab") as file:
            end = file.tell()
            for step in _STEPS:
                while _allocated(file.fileno(), start=end, size=step):
                    end += step

    def free(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            self._ballast.unlink()


def _allocated(file: int, *, start: int, size: int) -> bool:
    try:
        os.posix_fallocate(file, start, size)
    except OSError as error:
        if not is_full(error):
            raise
        return False
    return True


def _no_disk(why: str) -> FastVLAError:
    return FastVLAError(f"no small disk can be mounted: {why}", mend="run it as root")
