"""A cache as a LeRobot v3 data set, written with pyarrow and PyAV alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError
from training.cache_files import Cache
from training.cache_statistics import summary
from training.interop import lerobot_format as names
from training.interop.imported import require

# Pictures per episode that statistics are taken of.
_SAMPLED = 32
_CODEC = "libx264"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written; `left_out` counts steps without a picture, which the format cannot say."""

    episodes: int
    frames: int
    left_out: int


@dataclass(slots=True)
class _File:
    """The pair of indices that number the files of one kind."""

    chunk_index: int = 0
    file_index: int = 0

    def advance(self) -> None:
        self.file_index += 1
        if self.file_index == names.FILES_PER_CHUNK:
            self.chunk_index, self.file_index = self.chunk_index + 1, 0


def export_lerobot(cache: Cache, folder: str | Path) -> ExportResult:
    """Write the data set; the folder appears under its name when it is complete.

    Raises:
        DatasetError: the folder exists, the rate is no whole number, or no step is complete.
        DependencyError: pyarrow is not installed.
    """
    folder = Path(folder)
    rate_hz = cache.manifest.rate_hz
    if folder.exists():
        raise DatasetError(f"{folder}: exists already", mend="give another folder, or delete it")
    if rate_hz != round(rate_hz):
        raise DatasetError(
            f"the cache has {rate_hz:g} steps per second, the format wants a whole number",
            mend="convert the recordings with another --rate",
        )
    runs = list(_runs(cache))
    if not runs:
        raise DatasetError(
            "no step of the cache has a picture of every camera",
            mend="leave the camera that is missing out of the contract, and convert again",
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _Writer(cache, partial, fps=round(rate_hz))
    for rows in runs:
        writer.episode(rows)
    writer.close()
    os.replace(partial, folder)
    frames = sum(len(rows) for rows in runs)
    return ExportResult(episodes=len(runs), frames=frames, left_out=len(cache) - frames)


def _runs(cache: Cache) -> Iterator[NDArray[np.int64]]:
    """Rows of each episode; a step that lacks a picture ends one, as a hole in time does."""
    whole = np.asarray(cache.present).all(1)
    rows = np.flatnonzero(whole)
    start = np.asarray(cache.episode_start)[rows]
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(start) != 0)) + 1
    return (run for run in np.split(rows, breaks) if len(run))


@dataclass(slots=True)
class _Writer:
    cache: Cache
    folder: Path
    fps: int
    data_file: _File = field(default_factory=_File)
    video_file: _File = field(default_factory=_File)
    pending: list[dict[str, Any]] = field(default_factory=list)
    pending_bytes: int = 0
    episodes: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    videos: dict[str, _Video] = field(default_factory=dict)

    def episode(self, rows: NDArray[np.int64]) -> None:
        """Add one episode; rows are one step apart."""
        cache, index = self.cache, len(self.episodes)
        columns = {
            names.STATE: np.asarray(cache.state[rows]),
            names.ACTION: np.asarray(cache.label[rows]),
            "timestamp": (np.arange(len(rows)) / self.fps).astype(np.float32),
            "frame_index": np.arange(len(rows)),
            "episode_index": np.full(len(rows), index),
            "index": np.arange(len(rows)) + self.frames,
            "task_index": np.asarray(cache.instruction_id[rows], np.int64),
        }
        tasks = list(dict.fromkeys(cache.instructions[i] for i in cache.instruction_id[rows]))
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": tasks,
            "length": len(rows),
            "data/chunk_index": self.data_file.chunk_index,
            "data/file_index": self.data_file.file_index,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + len(rows),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        statistics = {k: summary(v.reshape(len(rows), -1)) for k, v in columns.items()}
        for camera in cache.cameras:
            row |= self._pictures(camera, rows)
            sampled = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLED).astype(int))]
            statistics[names.image_key(camera)] = _picture_statistics(cache.images[camera][sampled])
        row |= {f"stats/{k}/{n}": _listed(v) for k, s in statistics.items() for n, v in s.items()}
        self.episodes.append(row)
        self.pending.append(columns)
        self.pending_bytes += sum(values.nbytes for values in columns.values())
        self.frames += len(rows)
        self._roll()

    def close(self) -> None:
        """Write what is left, and the tables about it all."""
        self._write_data()
        for video in self.videos.values():
            video.close()
        parquet, arrow = require("pyarrow.parquet"), require("pyarrow")
        file = self.folder / names.EPISODES.format(chunk_index=0, file_index=0)
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist(self.episodes), file)
        self._write_tasks()
        _write_json(self.folder / names.INFO, self._info())
        _write_json(self.folder / names.STATS, self._statistics())

    def _pictures(self, camera: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        key = names.image_key(camera)
        if camera not in self.videos:
            path = self.folder / names.VIDEO.format(
                video_key=key,
                chunk_index=self.video_file.chunk_index,
                file_index=self.video_file.file_index,
            )
            self.videos[camera] = _Video(path, fps=self.fps)
        video = self.videos[camera]
        begin = video.frames
        for row in rows.tolist():
            video.add(self.cache.images[camera][row])
        return {
            f"videos/{key}/chunk_index": self.video_file.chunk_index,
            f"videos/{key}/file_index": self.video_file.file_index,
            f"videos/{key}/from_timestamp": begin / self.fps,
            f"videos/{key}/to_timestamp": video.frames / self.fps,
        }

    def _roll(self) -> None:
        """Begin other files where one has become large; an episode is never cut."""
        if self.pending_bytes > names.DATA_MB * 2**20:
            self._write_data()
            self.data_file.advance()
        if max((v.size for v in self.videos.values()), default=0) > names.VIDEO_MB * 2**20:
            for video in self.videos.values():
                video.close()
            self.videos = {}
            self.video_file.advance()

    def _write_data(self) -> None:
        if not self.pending:
            return
        arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
        joined = {k: np.concatenate([c[k] for c in self.pending]) for k in self.pending[0]}
        table = arrow.table({key: _arrow(arrow, values) for key, values in joined.items()})
        file = self.folder / names.DATA.format(
            chunk_index=self.data_file.chunk_index, file_index=self.data_file.file_index
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file)
        self.pending, self.pending_bytes = [], 0

    def _write_tasks(self) -> None:
        """The table that pandas reads with the tasks as its index."""
        arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
        tasks = self.cache.instructions
        index = "__index_level_0__"
        pandas = {
            "index_columns": [index],
            "column_indexes": [],
            "columns": [
                _pandas_column("task_index", "task_index", "int64", "int64"),
                _pandas_column(None, index, "unicode", "object"),
            ],
            "creator": {"library": "pyarrow", "version": arrow.__version__},
            "pandas_version": "2.2.0",
        }
        table = arrow.table({"task_index": arrow.array(range(len(tasks))), index: tasks})
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
        file = self.folder / names.TASKS
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": names.VERSION,
            "robot_type": self.cache.manifest.contract.name,
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": len(self.cache.instructions),
            "chunks_size": names.FILES_PER_CHUNK,
            "data_files_size_in_mb": names.DATA_MB,
            "video_files_size_in_mb": names.VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": names.DATA,
            "video_path": names.VIDEO,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        contract = self.cache.manifest.contract
        columns = list(contract.state_names)
        features: dict[str, Any] = {
            key: {"dtype": "float32", "shape": [len(columns)], "names": columns}
            for key in (names.STATE, names.ACTION)
        }
        for camera in self.cache.cameras:
            height, width = self.cache.images[camera][0].shape[:2]
            features[names.image_key(camera)] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": pixel_format(height, width),
                    "video.is_depth_map": False,
                    "video.fps": self.fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for key in ("frame_index", "episode_index", "index", "task_index"):
            features[key] = {"dtype": "int64", "shape": [1], "names": None}
        return features

    def _statistics(self) -> dict[str, Any]:
        """Of all frames: numbers exactly, pictures of a sample of each episode."""
        cache = self.cache
        rows = np.concatenate(list(_runs(cache)))
        found = {
            names.STATE: summary(np.asarray(cache.state[rows])),
            names.ACTION: summary(np.asarray(cache.label[rows])),
        }
        sampled = rows[np.unique(np.linspace(0, len(rows) - 1, 8 * _SAMPLED).astype(int))]
        for camera in cache.cameras:
            found[names.image_key(camera)] = _picture_statistics(cache.images[camera][sampled])
        return {key: {n: _listed(v) for n, v in part.items()} for key, part in found.items()}


class _Video:
    """One mp4 file that episode after episode is appended to; times are whole frames."""

    def __init__(self, path: Path, *, fps: int) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._fps = path, fps
        self._container = av.open(str(path), "w")
        self._stream: Any = None
        self.frames = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._path.stat().st_size

    def add(self, image: NDArray[np.uint8]) -> None:
        """Append uint8 [H, W, 3] RGB."""
        import av

        stream = self._stream or self._open(image)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self._fps)
        for packet in stream.encode(frame):
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()

    def _open(self, image: NDArray[np.uint8]) -> Any:
        height, width = image.shape[:2]
        # A key frame every other picture: training draws frames at random.
        options = {"crf": "18", "g": "2", "bf": "0"}
        stream: Any = self._container.add_stream(_CODEC, rate=self._fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format(height, width)
        stream.time_base = Fraction(1, self._fps)
        self._stream = stream
        return stream


def pixel_format(height: int, width: int) -> str:
    """Half the colour resolution where the size can be halved."""
    return "yuv444p" if height % 2 or width % 2 else "yuv420p"


def _picture_statistics(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Per channel, of values from 0 to 1, as [3, 1, 1]."""
    found = summary(images.reshape(-1, 3).astype(np.float32) / 255.0)
    shaped = {k: np.reshape(v, (3, 1, 1)).tolist() for k, v in found.items() if k != "count"}
    return {**shaped, "count": len(images)}


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _arrow(arrow: Any, values: NDArray[Any]) -> Any:
    if values.ndim == 1:
        return arrow.array(values)
    flat = arrow.array(values.reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _pandas_column(name: str | None, field: str, kind: str, numpy: str) -> dict[str, Any]:
    return {
        "name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy,
        "metadata": None,
    }  # fmt: skip


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=4), encoding="utf-8")
