"""A LeRobot v3 data set as a cache, read with pyarrow and PyAV alone."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError, FastVLAError
from training.cache_build import in_processes
from training.cache_files import CacheEntry, CacheManifest
from training.cache_folder import Progress, fill_cache, source_entry
from training.cache_shard import CachedEpisode
from training.interop import lerobot_format as names
from training.interop.imported import (
    ImportOptions,
    columns_by_name,
    keep_episode,
    labels,
    require,
    subsampled,
)


def import_lerobot(
    folder: str | Path,
    cache_dir: str | Path,
    *,
    options: ImportOptions,
    progress: Progress | None = None,
) -> CacheManifest:
    """Make a cache of a data set on this disk.

    Raises:
        DatasetError: it is no v3 data set, or its columns, cameras or rate do not fit.
        DependencyError: pyarrow is not installed.
    """
    dataset = _Dataset(Path(folder).resolve(), options)
    path = Path(cache_dir).absolute()
    return fill_cache(
        [dataset.folder],
        path,
        settings=options.settings("lerobot", rate_hz=dataset.rate_hz),
        convert=functools.partial(_convert, path=path, options=options),
        run=in_processes(1),
        progress=progress,
    )


def _convert(folder: Path, *, path: Path, options: ImportOptions) -> CacheEntry:
    dataset = _Dataset(folder, options)
    entry = source_entry(folder, with_hash=True)
    episodes: list[CachedEpisode] = []
    for number, episode in enumerate(dataset.episodes()):
        try:
            episodes.append(dataset.keep(episode, entry, number=number, path=path))
        except FastVLAError as error:
            episodes.append(CachedEpisode(skipped=error.message, failed=True))
    return dataclasses.replace(entry, episodes=tuple(episodes))


@dataclass(frozen=True, slots=True)
class _VideoSpan:
    file: Path
    from_s: float


class _Dataset:
    """One data set; what does not fit shows before anything is written."""

    def __init__(self, folder: Path, options: ImportOptions) -> None:
        self.folder, self._options = folder, options
        self._parquet = require("pyarrow.parquet")
        try:
            info = json.loads((folder / names.INFO).read_text(encoding="utf-8"))
            version, features = info["codebase_version"], info["features"]
            self._data_path, self._video_path = info["data_path"], info["video_path"]
            self._fps = float(info["fps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{folder}: is no LeRobot data set ({error})", mend=f"it has no {names.INFO}"
            ) from error
        if version != names.VERSION:
            raise DatasetError(
                f"{folder}: is a LeRobot data set {version}; {names.VERSION} is read",
                mend="convert it with LeRobot's own script for that",
            )
        self.rate_hz, self._stride = subsampled(self._fps, options.rate_hz, where=str(folder))
        self._features: dict[str, Any] = features
        self._state = self._columns(names.STATE)
        self._action = self._columns(names.ACTION) if options.action != "next_state" else None
        self._cameras = {
            camera.name: self._camera(camera.name) for camera in options.contract.policy_cameras
        }
        self._tasks = self._read_tasks()

    def episodes(self) -> Iterator[Mapping[str, Any]]:
        """The rows of the table of episodes, in order."""
        for file in sorted((self.folder / "meta/episodes").glob("*/*.parquet")):
            table = self._parquet.read_table(file)
            kept = [name for name in table.column_names if not name.startswith("stats/")]
            yield from table.select(kept).to_pylist()

    def keep(
        self, episode: Mapping[str, Any], entry: CacheEntry, *, number: int, path: Path
    ) -> CachedEpisode:
        """Write one episode into the cache."""
        index = episode["episode_index"]
        file = self.folder / self._data_path.format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        rows = self._parquet.read_table(file, filters=[("episode_index", "=", index)])
        rows = rows.sort_by("frame_index")
        state = _matrix(rows[names.STATE])[:, self._state]
        action = None
        if self._action is not None:
            action = _matrix(rows[names.ACTION])[:, self._action]
        frames, label = labels(state, action, stride=self._stride, options=self._options)
        instruction = self._options.instruction or self._task(rows, episode)
        return keep_episode(
            entry,
            number=number,
            path=path,
            options=self._options,
            rate_hz=self.rate_hz,
            instruction=instruction,
            images=self._pictures(rows, episode, frames),
            state=state[frames],
            label=label,
        )

    def _task(self, rows: Any, episode: Mapping[str, Any]) -> str:
        numbers = rows["task_index"].to_pylist()
        text = self._tasks.get(numbers[0], "") if numbers else ""
        if not text:
            raise DatasetError(
                f"{self.folder}: episode {episode['episode_index']} has no task",
                mend="give it with --instruction",
            )
        return text

    def _pictures(
        self, rows: Any, episode: Mapping[str, Any], frames: NDArray[np.int64]
    ) -> Iterator[dict[str, NDArray[np.uint8]]]:
        streams = {
            name: self._stream(key, rows, episode, frames) for name, key in self._cameras.items()
        }
        for _ in frames:
            yield {name: next(stream) for name, stream in streams.items()}

    def _stream(
        self, key: str, rows: Any, episode: Mapping[str, Any], frames: NDArray[np.int64]
    ) -> Iterator[NDArray[np.uint8]]:
        if self._features[key]["dtype"] == "image":
            for cell in rows[key].take(frames).to_pylist():
                yield _unpacked(cell, self.folder, key)
            return
        file = self.folder / self._video_path.format(
            video_key=key,
            chunk_index=episode[f"videos/{key}/chunk_index"],
            file_index=episode[f"videos/{key}/file_index"],
        )
        start_s = float(episode[f"videos/{key}/from_timestamp"])
        yield from read_video(file, start_s=start_s, frames=frames, fps=self._fps)

    def _columns(self, key: str) -> list[int]:
        feature = self._features.get(key)
        if feature is None:
            raise DatasetError(
                f"{self.folder}: has no '{key}'",
                mend="--action next_state needs no actions" if key == names.ACTION
                else "only data sets with joint states can be used",
            )  # fmt: skip
        listed = feature.get("names")
        if isinstance(listed, dict):
            listed = [name for part in listed.values() for name in part]
        width = int(np.prod(feature["shape"]))
        return columns_by_name(
            self._options.contract, names=listed, width=width, where=f"{self.folder}: '{key}'"
        )

    def _camera(self, name: str) -> str:
        wanted = self._options.cameras.get(name, names.image_key(name))
        there = [k for k, f in self._features.items() if f.get("dtype") in ("video", "image")]
        if wanted not in there:
            raise DatasetError(
                f"{self.folder}: has no camera '{wanted}' (it has {', '.join(there) or 'none'})",
                mend=f"name the one to take: --camera {name}=KEY",
            )
        return wanted

    def _read_tasks(self) -> dict[int, str]:
        file = self.folder / names.TASKS
        try:
            table = self._parquet.read_table(file)
            (text,) = [name for name in table.column_names if name != "task_index"]
            numbers = table["task_index"].to_pylist()
            return dict(zip(numbers, table[text].to_pylist()))
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"{file}: cannot be read ({error})", mend="copy it again") from error


def read_video(
    file: Path, *, start_s: float, frames: NDArray[np.int64], fps: float
) -> Iterator[NDArray[np.uint8]]:
    """Pictures uint8 [H, W, 3] RGB of an episode within a video, of ascending frames.

    Raises:
        DatasetError: the video is missing, damaged, or ends before.
    """
    import av
    from av.error import FFmpegError

    wanted = iter(frames.tolist())
    due = next(wanted, None)
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            base = stream.time_base or 1
            container.seek(int(start_s / base), stream=stream, backward=True)
            for picture in container.decode(stream):
                if due is None:
                    return
                # Half a frame of slack: timestamps are rounded to the container's time base.
                if picture.pts is None or picture.pts * base < start_s + (due - 0.5) / fps:
                    continue
                yield picture.to_ndarray(format="rgb24")
                due = next(wanted, None)
    except (OSError, FFmpegError, IndexError) as error:
        raise DatasetError(f"{file}: cannot be read ({error})", mend="copy it again") from error
    if due is not None:
        raise DatasetError(
            f"{file}: ends before frame {due} of the episode that begins at {start_s:g} s",
            mend="copy it again",
        )


def _matrix(column: Any) -> NDArray[np.float32]:
    """A column of lists, or of single numbers, as float32 [F, D]."""
    values = np.asarray(column.to_pylist(), np.float32)
    return values.reshape(len(values), -1)


def _unpacked(cell: Any, folder: Path, key: str) -> NDArray[np.uint8]:
    data = cell["bytes"] if isinstance(cell, dict) else None
    if data is None and isinstance(cell, dict) and cell.get("path"):
        file = folder / cell["path"]
        data = file.read_bytes() if file.is_file() else None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise DatasetError(f"{folder}: a picture of '{key}' cannot be read", mend="copy it again")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
