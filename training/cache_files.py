"""Aligned steps of many bags as flat, memory-mapped files; `cache_build` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import parse_contract

FORMAT = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One flat file of the cache: a row per frame."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame's row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def columns(contract: RobotContract) -> dict[str, Column]:
    """Every column of a robot's cache; images are under `image.<camera>`."""
    width = len(contract.state_names)
    table = {
        f"image.{c.name}": Column(
            file=f"image_{c.name}.u8", dtype="|u1", shape=(c.height, c.width, 3)
        )
        for c in contract.policy_cameras
    }
    n_cameras = len(contract.policy_cameras)
    table["present"] = Column(file="present.bool", dtype="|b1", shape=(n_cameras,))
    table["state"] = Column(file="state.f32", dtype="<f4", shape=(width,))
    table["label"] = Column(file="label.f32", dtype="<f4", shape=(len(contract.action_names),))
    for name in ("stamp_ns", "episode_start", "episode_end"):
        table[name] = Column(file=f"{name}.i64", dtype="<i8", shape=())
    table["instruction_id"] = Column(file="instruction_id.i32", dtype="<i4", shape=())
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One source bag: what it gave, or why nothing (`skipped`); `failed` if not by choice.

    Attributes:
        lost: What was damaged in it, where the rest was used.
    """

    source: str
    size: int
    mtime_ns: int
    sha256: str
    frames: int = 0
    instruction: str = ""
    outcome: str | None = None
    dropped: Mapping[str, int] | None = None
    bad_messages: Mapping[str, int] | None = None
    skipped: str = ""
    failed: bool = False
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "lost", tuple(self.lost))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheManifest:
    """What a finished cache holds and what it was made from."""

    contract: RobotContract
    rate_hz: float
    frames: int
    instructions: tuple[str, ...]
    entries: tuple[CacheEntry, ...]

    @property
    def episodes(self) -> int:
        """Bags that gave at least one frame."""
        return sum(entry.frames > 0 for entry in self.entries)

    @property
    def skipped(self) -> tuple[CacheEntry, ...]:
        """Bags that gave nothing, with the reason."""
        return tuple(entry for entry in self.entries if entry.skipped)

    @property
    def remarks(self) -> list[str]:
        """For people: what was not used of the recordings, and why; equal reasons once."""
        places: dict[str, list[str]] = {}
        for entry in self.entries:
            for reason in filter(None, (entry.skipped, *entry.lost)):
                kind = "skipped" if entry.skipped else "a part is lost"
                text = reason.replace(f"{entry.source}: ", "")
                places.setdefault(f"{kind}: {text}", []).append(entry.source)
        most = sorted(places.items(), key=lambda item: -len(item[1]))
        return [
            f"{found[0]}{f' and {len(found) - 1} more' if found[1:] else ''}: {reason}"
            for reason, found in most[:20]
        ]

    @property
    def digest(self) -> str:
        """Stands for the steps: equal for equal recordings, cut in the same way."""
        used = [(e.sha256, e.frames, e.instruction) for e in self.entries if e.frames]
        text = json.dumps([self.contract.hash(), self.rate_hz, self.frames, used])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """N frames, memory-mapped read-only; frames of one episode are contiguous and in order.

    Attributes:
        images: Camera to uint8 [N, H, W, 3], RGB.
        present: bool [N, cameras], in the order of `cameras`.
        state: float32 [N, S]; label: float32 [N, A], the target one step later.
        episode_start, episode_end: int64 [N], the rows that a frame's episode spans; a hole in
            a recording starts another one, so rows of one episode are one step apart.
        instruction_id: int32 [N], into `instructions`.
    """

    path: Path
    manifest: CacheManifest
    cameras: tuple[str, ...]
    images: Mapping[str, NDArray[np.uint8]]
    present: NDArray[np.bool_]
    state: NDArray[np.float32]
    label: NDArray[np.float32]
    stamp_ns: NDArray[np.int64]
    episode_start: NDArray[np.int64]
    episode_end: NDArray[np.int64]
    instruction_id: NDArray[np.int32]
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.state)


def open_cache(path: str | Path) -> Cache:
    """Map a finished cache into memory.

    Raises:
        DatasetError: missing, not finished, of another format, or its files were cut.
    """
    path = Path(path)
    manifest = read_manifest(path)
    mapped: dict[str, Any] = {}
    for name, column in columns(manifest.contract).items():
        file = path / column.file
        expected = manifest.frames * column.row_bytes
        size = file.stat().st_size if file.is_file() else 0
        if size != expected:
            raise DatasetError(
                f"{file}: has {size} bytes instead of {expected}",
                mend="run `fastvla data convert` again; it makes the cache anew",
            )
        shape = (manifest.frames, *column.shape)
        mapped[name] = np.memmap(file, column.dtype, "r", shape=shape)
    cameras = tuple(c.name for c in manifest.contract.policy_cameras)
    images = {name: mapped.pop(f"image.{name}") for name in cameras}
    return Cache(
        path=path,
        manifest=manifest,
        cameras=cameras,
        images=images,
        instructions=list(manifest.instructions),
        **mapped,
    )


def read_manifest(path: Path) -> CacheManifest:
    """The manifest of a finished cache.

    Raises:
        DatasetError: missing, not finished, or of another format.
    """
    file = path / MANIFEST_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, expected {FORMAT}")
        return CacheManifest(
            contract=parse_contract(data["contract"], source=str(file)),
            rate_hz=data["rate_hz"],
            frames=data["frames"],
            instructions=tuple(data["instructions"]),
            entries=tuple(CacheEntry(**entry) for entry in data["entries"]),
        )
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: is not a finished cache (no {MANIFEST_FILE})",
            mend="`fastvla data convert BAGS --out CACHE` makes it, and goes on where it stopped",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file}: cannot be used ({error})",
            mend="delete the folder and run `fastvla data convert` again",
        ) from error
