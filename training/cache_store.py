"""The files of a cache in the making: frames are appended, a journal says what is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import RobotContract
from training.bags.episodes import EpisodeSteps
from training.cache_files import MANIFEST_FILE, CacheEntry, CacheManifest, columns

JOURNAL_FILE = "journal.jsonl"


class CacheStore:
    """The files of a cache in the making. The journal says what is complete: frames first, then
    their line, so that anything behind the last whole line is cut off at the next start."""

    def __init__(self, path: Path, *, contract: RobotContract, settings: dict[str, Any]) -> None:
        self._path, self._contract = path, contract
        self._settings = json.loads(json.dumps(settings))
        self._columns = columns(contract)
        self._files: dict[str, Any] = {}
        self._entries: list[CacheEntry] = []
        self._instructions: dict[str, int] = {}
        self.frames = 0

    def resume(self, sources: list[Path]) -> set[str]:
        """Sources that are in the cache already; a cache that does not fit is begun anew."""
        if self._path.exists() and not self._path.is_dir():
            raise DatasetError(f"{self._path}: is a file", mend="give a folder for the cache")
        if self._path.is_dir() and any(self._path.iterdir()):
            if not (self._path / JOURNAL_FILE).is_file():
                raise DatasetError(
                    f"{self._path}: holds other files and no cache",
                    mend="give an empty or new folder for the cache",
                )
            self._read_journal(sources)
        if not self._entries:
            self._begin()
        return {entry.source for entry in self._entries}

    def __enter__(self) -> CacheStore:
        (self._path / MANIFEST_FILE).unlink(missing_ok=True)
        for name, column in self._columns.items():
            file = (self._path / column.file).open("ab")
            file.truncate(self.frames * column.row_bytes)
            self._files[name] = file
        self._files[JOURNAL_FILE] = (self._path / JOURNAL_FILE).open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, entry: CacheEntry, steps: EpisodeSteps | None) -> None:
        """Add one source: its frames, then its line in the journal."""
        if steps is not None:
            for name, rows in self._rows(steps).items():
                column = self._columns[name]
                block = np.ascontiguousarray(rows, column.dtype)
                assert block.shape == (len(steps), *column.shape), (name, block.shape)
                self._files[name].write(block.data)
                self._files[name].flush()
            self.frames += len(steps)
        self._entries.append(entry)
        self._write_line(dataclasses.asdict(entry))

    def finish(self, *, rate_hz: float) -> CacheManifest:
        """Make the cache durable and complete by its manifest."""
        if not self.frames:
            # The first line says what is wrong; each has a mend of its own below it.
            reasons = dict.fromkeys(entry.skipped.splitlines()[0] for entry in self._entries)
            listed = "\n".join(f"  {reason}" for reason in list(reasons)[:3])
            raise DatasetError(
                f"none of {len(self._entries)} recordings gives a usable step:\n{listed}",
                mend="`fastvla data inspect BAG` shows what is wrong; `--outcome any` also takes "
                "episodes that were not judged a success",
            )
        for file in self._files.values():
            os.fsync(file.fileno())
        data = {
            **self._settings,
            "frames": self.frames,
            "instructions": list(self._instructions),
            "entries": [dataclasses.asdict(entry) for entry in self._entries],
        }
        temporary = self._path / (MANIFEST_FILE + ".tmp")
        temporary.write_text(json.dumps(data), encoding="utf-8")
        os.replace(temporary, self._path / MANIFEST_FILE)
        return CacheManifest(
            contract=self._contract,
            rate_hz=rate_hz,
            frames=self.frames,
            instructions=tuple(self._instructions),
            entries=tuple(self._entries),
        )

    def _rows(self, steps: EpisodeSteps) -> dict[str, Any]:
        number = self._instructions.setdefault(steps.instruction, len(self._instructions))
        # A jump of the tick is a hole: what follows is an episode of its own.
        begins = np.flatnonzero(np.diff(steps.tick, prepend=steps.tick[0] - 1) != 1)
        begins = np.unique(np.concatenate([[0], begins]))
        lengths = np.diff(np.append(begins, len(steps)))
        start = np.repeat(begins, lengths) + self.frames
        rows: dict[str, Any] = {f"image.{n}": image for n, image in steps.images.items()}
        return rows | {
            "present": steps.image_present,
            "state": steps.state,
            "label": steps.label,
            "stamp_ns": steps.stamp_ns,
            "episode_start": start,
            "episode_end": start + np.repeat(lengths, lengths),
            "instruction_id": np.full(len(steps), number),
        }

    def _begin(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        for name in [MANIFEST_FILE, *(column.file for column in self._columns.values())]:
            (self._path / name).unlink(missing_ok=True)
        self._entries, self._instructions, self.frames = [], {}, 0
        line = json.dumps({"settings": self._settings}) + "\n"
        (self._path / JOURNAL_FILE).write_text(line, encoding="utf-8")

    def _write_line(self, data: dict[str, Any]) -> None:
        journal = self._files[JOURNAL_FILE]
        journal.write(json.dumps(data).encode() + b"\n")
        journal.flush()

    def _read_journal(self, sources: list[Path]) -> None:
        file = self._path / JOURNAL_FILE
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            entries = [CacheEntry(**line) for line in lines[1:]]
            same = bool(lines) and lines[0]["settings"] == self._settings
        except (ValueError, TypeError, KeyError):
            return
        given = set(map(str, sources))
        if not same or any(e.source not in given or _changed(e) for e in entries):
            return
        frames = sum(entry.frames for entry in entries)
        for column in self._columns.values():
            data = self._path / column.file
            if frames and (not data.is_file() or data.stat().st_size < frames * column.row_bytes):
                return
        os.truncate(file, len(whole))
        self._entries, self.frames = entries, frames
        for entry in entries:
            if entry.frames:
                self._instructions.setdefault(entry.instruction, len(self._instructions))


def _changed(entry: CacheEntry) -> bool:
    now = source_entry(Path(entry.source), with_hash=False)
    if (now.size, now.mtime_ns) == (entry.size, entry.mtime_ns):
        return False
    return source_entry(Path(entry.source), with_hash=True).sha256 != entry.sha256


def source_entry(source: Path, *, with_hash: bool) -> CacheEntry:
    """Size, time and, with `with_hash`, SHA-256 of a bag's files."""
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
