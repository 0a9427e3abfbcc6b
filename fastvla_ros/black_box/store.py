"""The folder of kept bags: so many, so large, the oldest give way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from fastvla_core.bags.spare_file import is_full
from fastvla_core.bags.writer import PARTIAL_SUFFIX, BagWriter
from fastvla_core.errors import BagError
from fastvla_ros.black_box.ring import Recorded

# 20261121-041502-123_STALE_SENSOR, in UTC with milliseconds, so that names sort by age.
_OURS = re.compile(rf"\d{{8}}-\d{{6}}-\d{{3}}_[A-Z0-9_]+({re.escape(PARTIAL_SUFFIX)})?")
# What a bag needs beside its messages, and what the rest of the machine should keep.
_MARGIN_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A bag that was written.

    Attributes:
        without_pictures: There was no room for them.
    """

    folder: Path
    messages: int
    without_pictures: bool


class BagStore:
    """Writes bags into a folder and removes the oldest; touches nothing else in it.

    Args:
        folder: Made when it is first needed.
        keep: How many bags there may be.
        max_bytes: How large they may be together.
    """

    def __init__(self, folder: Path, *, keep: int, max_bytes: int) -> None:
        self.folder = folder
        self._keep, self._max_bytes = keep, max_bytes

    def bags(self) -> list[Path]:
        """The bags that are there, also interrupted ones, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.is_dir() and _OURS.fullmatch(p.name))

    def write(
        self, messages: list[Recorded], *, reason: str, information: Mapping[str, str]
    ) -> Kept:
        """Keep messages as one bag; without pictures where the disk has no room for them.

        Args:
            messages: By time of receipt. The list is emptied on the way: what the ring drops
                while a bag is written would be held until its end otherwise.
            reason: Error code, part of the bag's name.
            information: Kept with the messages.

        Raises:
            BagError: there is no room even without pictures, or the folder cannot be written.
        """
        small = [message for message in messages if not message.stream.is_camera]
        attempts = [messages] if len(small) == len(messages) else [messages, small]
        problem: BagError | None = None
        for chosen in attempts:
            count = len(chosen)
            try:
                self._make_room(sum(message.size for message in chosen))
                folder = self._write(chosen, reason=reason, information=information)
            except BagError as error:
                problem = error
            except OSError as error:
                if not is_full(error):
                    raise _cannot_write(self.folder, error) from error
                problem = _cannot_write(self.folder, error)
            else:
                missing = chosen is not attempts[0]
                return Kept(folder=folder, messages=count, without_pictures=missing)
            finally:
                chosen.clear()
        assert problem is not None
        raise problem

    def _write(
        self, messages: list[Recorded], *, reason: str, information: Mapping[str, str]
    ) -> Path:
        writer = BagWriter(self._new_name(reason), information=information)
        messages.reverse()
        try:
            while messages:
                message = messages.pop()
                latched_ns = message.latched_ns
                writer.write(
                    message.topic,
                    type_name=message.stream.type_name,
                    message=message.data,
                    stamp_ns=message.stamp_ns,
                    publish_ns=latched_ns,
                )
            return writer.close()
        except (BagError, OSError):
            writer.discard()
            raise

    def _new_name(self, reason: str) -> Path:
        newest = max((path.name.split("_")[0] for path in self.bags()), default="")
        now = datetime.now(timezone.utc)
        while (stamp := f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}") == newest:
            now += timedelta(milliseconds=1)
        return self.folder / f"{stamp}_{reason}"

    def _make_room(self, size: int) -> None:
        """Remove the oldest bags until one of `size` bytes is allowed and fits."""
        if size > self._max_bytes:
            raise BagError(
                f"{self.folder}: a bag of {size >> 20} MiB is more than all bags may take "
                f"({self._max_bytes >> 20} MiB)",
                mend="raise the parameter disk_mib, or lower memory_mib",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        bags = [(path, _size(path)) for path in self.bags()]
        free, needed = shutil.disk_usage(self.folder).free, size + _MARGIN_BYTES
        # What would not make enough room is not removed.
        if free + sum(known for _, known in bags) < needed:
            raise BagError(
                f"{self.folder}: the disk is full ({free >> 20} MiB free, the bag needs "
                f"{needed >> 20} MiB)",
                mend="make room, or set the parameter directory to another disk",
            )
        while bags and (
            len(bags) >= self._keep
            or sum(known for _, known in bags) + size > self._max_bytes
            or free < needed
        ):
            path, known = bags.pop(0)
            shutil.rmtree(path)
            free += known


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _cannot_write(folder: Path, error: OSError) -> BagError:
    return BagError(
        f"{folder}: cannot be written ({error.strerror or error})",
        mend="set the parameter directory to a folder that this user may write",
    )
