"""Whether a cache is what it was when it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvla_core.errors import DatasetError
from training.cache_files import CacheEntry, CacheManifest, read_manifest
from training.cache_folder import EPISODES, source_entry
from training.cache_shard import CachedEpisode, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """What `verify_cache` found.

    Attributes:
        problems: What is broken, with the mend on a second line; empty when the cache is whole.
        notes: What is only worth knowing.
    """

    episodes: int = 0
    frames: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verify_cache(path: str | Path) -> CacheReport:
    """Read every byte of a cache, and look whether its sources are still the same."""
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except DatasetError as error:
        return CacheReport(problems=(str(error),))
    problems, frames = [], 0
    for episode in manifest.episode_files:
        try:
            _check_episode(path, episode, manifest)
            frames += episode.frames
        except DatasetError as error:
            problems.append(str(error))
    notes = [note for entry in manifest.entries if (note := _source_note(entry)) is not None]
    known = {(path / episode.file).name for episode in manifest.episode_files}
    foreign = [f.name for f in (path / EPISODES).iterdir() if f.name not in known]
    notes += [f"{path / EPISODES / name}: belongs to no episode" for name in sorted(foreign)]
    return CacheReport(
        episodes=manifest.episodes, frames=frames, problems=tuple(problems), notes=tuple(notes)
    )


def _check_episode(path: Path, episode: CachedEpisode, manifest: CacheManifest) -> None:
    shard = Shard(path / episode.file)
    shard.check()
    if shard.sha256 != episode.sha256 or len(shard) != episode.frames:
        raise _wrong(shard, "is not the episode that the manifest names")
    columns, width = shard.columns, len(manifest.contract.state_names)
    for name in ("state", "label"):
        values = columns[name]
        if values.shape != (len(shard), width) or not np.isfinite(values).all():
            raise _wrong(shard, f"its {name} is not {width} finite numbers a step")
    if (np.diff(columns["stamp_ns"]) <= 0).any() or (np.diff(columns["tick"]) <= 0).any():
        raise _wrong(shard, "its steps are not in order")
    for number, camera in enumerate(manifest.contract.policy_cameras):
        stored = columns[f"place.{camera.name}"][:, 1] > 0
        if (stored != columns["present"][:, number]).any():
            raise _wrong(shard, f"pictures of camera '{camera.name}' are missing")
        # The checksum covers the bytes; one picture shows that they can be unpacked.
        if stored.any():
            shard.picture(camera.name, int(np.flatnonzero(stored)[0]))


def _wrong(shard: Shard, what: str) -> DatasetError:
    return DatasetError(
        f"{shard.path}: {what}",
        mend="delete this file and run `fastvla data convert` again; only it is made anew",
    )


def _source_note(entry: CacheEntry) -> str | None:
    source = Path(entry.source)
    if not source.exists():
        return f"{source}: is no longer there"
    now = source_entry(source, with_hash=False)
    if (now.size, now.mtime_ns) == (entry.size, entry.mtime_ns):
        return None
    if source_entry(source, with_hash=True).sha256 == entry.sha256:
        return None
    return f"{source}: has changed since; `fastvla data convert` takes it anew"
