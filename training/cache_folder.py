"""A cache in the making: every source's result is kept under its name as soon as it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fastvla_core.bags.spare_file import is_full
from fastvla_core.errors import DatasetError
from training.cache_files import FORMAT, MANIFEST_FILE, CacheEntry, CacheManifest, read_manifest
from training.cache_shard import TEMPORARY_SUFFIX, Shard
from training.cache_statistics import training_statistics

Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with sources done, sources in all, frames so far."""
Convert: TypeAlias = Callable[[Path], CacheEntry]
"""Writes a source's episodes into the cache and says what became of them; can be pickled."""
Runner: TypeAlias = Callable[[Convert, Sequence[Path]], Iterator[CacheEntry]]
"""Converts sources somewhere: in this process, a pool, a cluster; in any order."""

_MARK_FILE = "cache.json"
_ENTRIES, EPISODES = "entries", "episodes"


def fill_cache(
    sources: Sequence[Path],
    path: Path,
    *,
    settings: Mapping[str, Any],
    convert: Convert,
    run: Runner,
    progress: Progress | None = None,
) -> CacheManifest:
    """Convert what is not in the cache yet, and finish it by its manifest.

    Args:
        settings: Plain data; results of other settings are made anew. Holds `contract`,
            `rate_hz` and `validation`, the share that statistics leave out.

    Raises:
        DatasetError: the folder holds something else, the disk is full, or no source gave a step.
    """
    folder = _CacheFolder(path, settings)
    _prepare(path)
    known = {source: entry for source in sources if (entry := folder.known(source)) is not None}
    todo = [source for source in sources if source not in known]
    frames = sum(entry.frames for entry in known.values())
    if todo:
        (path / MANIFEST_FILE).unlink(missing_ok=True)
    for done, entry in enumerate(run(convert, todo), len(known) + 1):
        folder.keep(entry)
        known[Path(entry.source)] = entry
        frames += entry.frames
        if progress is not None:
            progress(done, len(sources), frames)
    return folder.finish([known[source] for source in sources])


def take_over(earlier: Path, path: Path) -> None:
    """Begin a cache with the results of another, so that their sources are not converted again.

    Files are linked where the disk can do that: none is written to once it is there. What `path`
    has already stays; what the new cache does not need goes when it is finished.

    Raises:
        DatasetError: `path` holds something else, or the disk is full.
    """
    _prepare(path)
    # An entry comes after the episodes that it names.
    for part in (EPISODES, _ENTRIES):
        for file in (earlier / part).iterdir():
            target = path / part / file.name
            if target.exists() or file.name.endswith(TEMPORARY_SUFFIX):
                continue
            try:
                target.hardlink_to(file)
            except OSError:
                write_whole(target, file.read_bytes())


def _prepare(path: Path) -> None:
    """Make the folder, and clear what a killed converter left half-written."""
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{path}: is a file", mend="give a folder for the cache")
    if path.is_dir() and any(path.iterdir()) and not (path / _MARK_FILE).is_file():
        if (path / "journal.jsonl").is_file():
            raise DatasetError(
                f"{path}: is a cache of an older version", mend="delete it and convert again"
            )
        raise DatasetError(
            f"{path}: holds other files and no cache",
            mend="give an empty or new folder for the cache",
        )
    for part in (_ENTRIES, EPISODES):
        (path / part).mkdir(parents=True, exist_ok=True)
        for left in (path / part).glob(f"*{TEMPORARY_SUFFIX}"):
            left.unlink(missing_ok=True)
    write_whole(path / _MARK_FILE, json.dumps({"format": FORMAT}))


class _CacheFolder:
    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        text = json.dumps(self._settings, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()

    def known(self, source: Path) -> CacheEntry | None:
        """What an earlier run made of a source, where source and result are still the same."""
        try:
            data = json.loads(self._entry_file(source).read_text(encoding="utf-8"))
            if data["settings"] != self._digest:
                return None
            entry = CacheEntry(**data["entry"])
            for episode in entry.episodes:
                if episode.frames and Shard(self._path / episode.file).sha256 != episode.sha256:
                    return None
        except (OSError, ValueError, KeyError, TypeError, DatasetError):
            return None
        return None if _changed(entry) else entry

    def keep(self, entry: CacheEntry) -> None:
        """Note what became of a source; its episodes are whole by now."""
        data = {"settings": self._digest, "entry": dataclasses.asdict(entry)}
        write_whole(self._entry_file(Path(entry.source)), json.dumps(data))

    def finish(self, entries: Sequence[CacheEntry]) -> CacheManifest:
        """Write the manifest, and remove what belongs to none of its sources."""
        frames = sum(entry.frames for entry in entries)
        if not frames:
            raise _nothing_usable(entries)
        episodes = [e for entry in entries for e in entry.episodes if e.frames]
        wanted = {str(self._entry_file(Path(entry.source))) for entry in entries}
        wanted |= {str(self._path / episode.file) for episode in episodes}
        for part in (_ENTRIES, EPISODES):
            for file in (self._path / part).iterdir():
                if str(file) not in wanted:
                    file.unlink()
        data = {
            "format": FORMAT,
            "settings": self._settings,
            "settings_sha256": self._digest,
            "frames": frames,
            "instructions": list(dict.fromkeys(e.instruction for e in episodes)),
            "statistics": training_statistics(
                self._path, episodes, held_out=self._settings["validation"]
            ),
            "entries": [dataclasses.asdict(entry) for entry in entries],
        }
        write_whole(self._path / MANIFEST_FILE, json.dumps(data))
        return read_manifest(self._path)

    def _entry_file(self, source: Path) -> Path:
        return self._path / _ENTRIES / f"{source_key(source)}.json"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is there with all of its content or not at all.

    Raises:
        DatasetError: the disk is full.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if is_full(error):
            raise disk_full(path) from error
        raise


def disk_full(path: Path) -> DatasetError:
    """What is said when the cache's disk is full."""
    return DatasetError(
        f"{path}: the disk is full; the episodes that are complete are kept",
        mend="make room, or give a smaller --image-size, and run the same command again: it goes "
        "on where it stopped",
    )


def source_key(source: Path) -> str:
    """A file name that stands for a source's path."""
    return hashlib.sha256(str(source).encode()).hexdigest()[:16]


def source_entry(source: Path, *, with_hash: bool) -> CacheEntry:
    """Size, time and, with `with_hash`, SHA-256 of a source's files."""
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    if with_hash:
        for file in files:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    stats = [file.stat() for file in files]
    return CacheEntry(
        source=str(source),
        size=sum(s.st_size for s in stats),
        mtime_ns=max((s.st_mtime_ns for s in stats), default=0),
        sha256=digest.hexdigest() if with_hash else "",
    )


def split_key(source_sha256: str, number: int) -> float:
    """In [0, 1), from a source's content and the number of the episode in it."""
    text = f"{source_sha256}:{number}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def _changed(entry: CacheEntry) -> bool:
    now = source_entry(Path(entry.source), with_hash=False)
    if (now.size, now.mtime_ns) == (entry.size, entry.mtime_ns):
        return False
    return source_entry(Path(entry.source), with_hash=True).sha256 != entry.sha256


def _nothing_usable(entries: Iterable[CacheEntry]) -> DatasetError:
    entries = list(entries)
    reasons: dict[str, None] = {}
    for entry in entries:
        for reason in (entry.skipped, *(episode.skipped for episode in entry.episodes)):
            if reason:
                # The first line says what is wrong; each has a mend of its own below it.
                reasons.setdefault(reason.splitlines()[0])
    listed = "\n".join(f"  {reason}" for reason in list(reasons)[:3])
    return DatasetError(
        f"none of {len(entries)} recordings gives a usable step:\n{listed}",
        mend="`fastvla data inspect BAG` shows what is wrong; `--outcome any` also takes "
        "episodes that were not judged a success",
    )
