"""A finished cache: what it was made from, its episodes, and its pictures by row."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import parse_contract
from training.cache_images import CachedImages
from training.cache_shard import CachedEpisode, Shard

FORMAT = 2
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One source: the episodes that it gave, or why nothing (`skipped`).

    Attributes:
        sha256: Of its files.
        failed: It was not left out by choice.
        lost: What was damaged in it, where the rest was used.
    """

    source: str
    size: int
    mtime_ns: int
    sha256: str
    episodes: tuple[CachedEpisode, ...] = ()
    outcome: str | None = None
    skipped: str = ""
    failed: bool = False
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON knows no tuples and no dataclasses.
        object.__setattr__(self, "lost", tuple(self.lost))
        episodes = (
            e if isinstance(e, CachedEpisode) else CachedEpisode(**e) for e in self.episodes
        )
        object.__setattr__(self, "episodes", tuple(episodes))

    @property
    def frames(self) -> int:
        """Steps of all its episodes."""
        return sum(episode.frames for episode in self.episodes)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The tasks of its episodes, each once."""
        return tuple(dict.fromkeys(e.instruction for e in self.episodes if e.frames))

    @property
    def problems(self) -> list[str]:
        """Why it, or an episode of it, gave nothing or not all."""
        reasons = [f"skipped: {self.skipped}"] if self.skipped else []
        reasons += [f"an episode is skipped: {e.skipped}" for e in self.episodes if e.skipped]
        reasons += [f"a part is lost: {reason}" for reason in self.lost]
        return reasons + [note for e in self.episodes for note in e.notes]

    @property
    def is_lossy(self) -> bool:
        """Something of it could not be used, and nobody asked for that."""
        return self.failed or bool(self.lost) or any(e.failed for e in self.episodes)

    def counted(self, name: str) -> Counter[str]:
        """One of the episodes' counts (`dropped`, `bad_messages`, ...), added up."""
        return sum((Counter(getattr(e, name) or {}) for e in self.episodes), Counter())


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheManifest:
    """What a finished cache holds and what it was made from.

    Attributes:
        settings: Everything that decided its content, the contract and the split among it.
        statistics: Of the training split: `state` and `action`, each with mean, std, min, max and
            the exact quantiles q01 to q99, per column.
    """

    contract: RobotContract
    rate_hz: float
    frames: int
    instructions: tuple[str, ...]
    entries: tuple[CacheEntry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def episode_files(self) -> tuple[CachedEpisode, ...]:
        """The episodes that gave at least one frame, in the order of their rows."""
        return tuple(e for entry in self.entries for e in entry.episodes if e.frames)

    @property
    def episodes(self) -> int:
        """How many gave at least one frame."""
        return len(self.episode_files)

    @property
    def skipped(self) -> tuple[CacheEntry, ...]:
        """Sources that gave nothing, with the reason."""
        return tuple(entry for entry in self.entries if entry.skipped)

    @property
    def remarks(self) -> list[str]:
        """For people: what was not used of the recordings, and why; equal reasons once."""
        places: dict[str, list[str]] = {}
        for entry in self.entries:
            for reason in dict.fromkeys(entry.problems):
                text = reason.replace(f"{entry.source}: ", "")
                places.setdefault(text, []).append(entry.source)
        most = sorted(places.items(), key=lambda item: -len(item[1]))
        return [
            f"{found[0]}{f' and {len(found) - 1} more' if found[1:] else ''}: {reason}"
            for reason, found in most[:20]
        ]

    @property
    def digest(self) -> str:
        """Stands for the steps: equal for equal recordings, cut in the same way."""
        used = [(e.sha256, e.frames, e.instruction) for e in self.episode_files]
        text = json.dumps([self.contract.hash(), self.rate_hz, self.frames, used])
        return hashlib.sha256(text.encode()).hexdigest()


ImageRows: TypeAlias = CachedImages | NDArray[np.uint8]
"""Pictures by row: files that are unpacked when they are asked for, or an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """N frames, read-only; frames of one episode are contiguous and in order.

    Attributes:
        images: Camera to rows that give uint8 [..., H, W, 3], RGB.
        present: bool [N, cameras], in the order of `cameras`.
        state: float32 [N, S]; label: float32 [N, A], the target one step later.
        episode_start, episode_end: int64 [N], the rows that a frame's episode spans; a hole in
            a recording starts another one, so rows of one episode are one step apart.
        instruction_id: int32 [N], into `instructions`.
        split_key: float64 [N] in [0, 1): frames below a share are held out from training. One
            value per recorded episode, from its content, so that it stays where it is however
            many others come.
    """

    path: Path
    manifest: CacheManifest
    cameras: tuple[str, ...]
    images: Mapping[str, ImageRows]
    present: NDArray[np.bool_]
    state: NDArray[np.float32]
    label: NDArray[np.float32]
    stamp_ns: NDArray[np.int64]
    episode_start: NDArray[np.int64]
    episode_end: NDArray[np.int64]
    instruction_id: NDArray[np.int32]
    instructions: list[str]
    split_key: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.state)

    def rows_from(self, folder: Path) -> NDArray[np.bool_]:
        """True for the steps of recordings in a folder, bool [N]."""
        entries, folder = self.manifest.entries, folder.resolve()
        inside = [Path(entry.source).resolve().is_relative_to(folder) for entry in entries]
        return np.repeat(inside, [entry.frames for entry in entries])


def open_cache(path: str | Path) -> Cache:
    """Open a finished cache; pictures stay on disk.

    Raises:
        DatasetError: missing, not finished, of another format, or its files were cut.
    """
    path = Path(path)
    manifest = read_manifest(path)
    shards = [_open_episode(path, episode) for episode in manifest.episode_files]
    lengths = np.asarray([len(shard) for shard in shards], np.int64)
    first = np.cumsum(lengths) - lengths
    spans = [_spans(shard, int(at)) for shard, at in zip(shards, first)]
    number = {text: k for k, text in enumerate(manifest.instructions)}
    cameras = tuple(c.name for c in manifest.contract.policy_cameras)

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([shard.columns[name] for shard in shards])

    return Cache(
        path=path,
        manifest=manifest,
        cameras=cameras,
        images={name: CachedImages(shards, camera=name) for name in cameras},
        present=column("present"),
        state=column("state"),
        label=column("label"),
        stamp_ns=column("stamp_ns"),
        episode_start=np.concatenate([start for start, _ in spans]),
        episode_end=np.concatenate([end for _, end in spans]),
        instruction_id=np.repeat(
            np.asarray([number[e.instruction] for e in manifest.episode_files], np.int32), lengths
        ),
        instructions=list(manifest.instructions),
        split_key=np.repeat([e.split_key for e in manifest.episode_files], lengths),
    )


def _open_episode(path: Path, episode: CachedEpisode) -> Shard:
    shard = Shard(path / episode.file)
    if shard.sha256 != episode.sha256 or len(shard) != episode.frames:
        raise DatasetError(
            f"{shard.path}: is not the episode that {MANIFEST_FILE} names",
            mend="run `fastvla data convert` again; only this episode is made anew",
        )
    return shard


def _spans(shard: Shard, at: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last row (exclusive) of the run of steps that each row belongs to."""
    tick = shard.columns["tick"]
    # A jump of the tick is a hole: what follows is an episode of its own.
    begins = np.flatnonzero(np.diff(tick, prepend=tick[0] - 2) != 1)
    lengths = np.diff(np.append(begins, len(tick)))
    start = np.repeat(begins, lengths) + at
    return start, start + np.repeat(lengths, lengths)


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
        settings = data["settings"]
        return CacheManifest(
            contract=parse_contract(settings["contract"], source=str(file)),
            rate_hz=settings["rate_hz"],
            frames=data["frames"],
            instructions=tuple(data["instructions"]),
            entries=tuple(CacheEntry(**entry) for entry in data["entries"]),
            settings=settings,
            statistics=data["statistics"],
        )
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: is not a finished cache (no {MANIFEST_FILE})",
            mend="`fastvla data convert BAGS --out CACHE` makes it, and goes on where it stopped",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file}: cannot be used ({error})",
            mend="run `fastvla data convert` again; episodes that are whole are kept",
        ) from error
