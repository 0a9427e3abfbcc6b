"""A file that can still be finished when the disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STEP_BYTES = 4 * 1024 * 1024
_PIECE = b"\0" * (1024 * 1024)


def is_full(error: OSError) -> bool:
    """Whether the error says that nothing more fits (full disk, quota, size limit)."""
    return error.errno in _FULL


class SpareFile:
    """A file to write, and some room beside it that is given back when the disk is full.

    What was asked to be written before the disk was full is written whole; `full` is set then, and
    the writer should finish with the room that is left.

    Args:
        path: The file to be.
        spare: Another file, on the same disk, that holds the room; deleted by `close`.

    Attributes:
        full: The disk was full, and the spare room is in use.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(self, path: Path, *, spare: Path) -> None:
        self.full = False
        self._spare = spare
        self._spare_bytes = 0
        self._position = 0
        self._closed = False
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self._spare_file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:
            os.close(self._file)
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def keep_spare(self, size: int) -> None:
        """Hold at least `size` bytes back; on a disk that is too full for it, `full` is set."""
        while not self.full and self._spare_bytes < size:
            try:
                _allocate(self._spare_file, start=self._spare_bytes, size=_STEP_BYTES)
                self._spare_bytes += _STEP_BYTES
            except OSError as error:
                if not is_full(error):
                    raise
                self._use_spare()

    def write(self, data: bytes) -> int:
        """Append; raises OSError only when even the spare room is used up."""
        rest = memoryview(data)
        while rest:
            try:
                count = os.write(self._file, rest)
            except OSError as error:
                if self.full or not is_full(error):
                    raise
                self._use_spare()
                continue
            rest = rest[count:]
            self._position += count
        return len(data)

    def tell(self) -> int:
        """Bytes written."""
        return self._position

    def flush(self) -> None:
        """Nothing is held back in this process."""

    def sync(self) -> None:
        """Have the disk keep what was written, also when the power fails."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file and give the spare room back; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        os.close(self._file)
        os.close(self._spare_file)
        self._spare.unlink(missing_ok=True)

    def _use_spare(self) -> None:
        self.full = True
        self._spare_bytes = 0
        os.ftruncate(self._spare_file, 0)


def _allocate(file: int, *, start: int, size: int) -> None:
    """Take room on the disk, really: a hole would give none back."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, size)
        return
    os.lseek(file, start, os.SEEK_SET)
    for _ in range(size // len(_PIECE)):
        os.write(file, _PIECE)
