"""One episode of a cache in one file: pictures as they come, then the small columns, then a table.

    magic (8) | pictures | columns | table (JSON) | its size (u64) | SHA-256 of all before | magic

The file appears under its name when it is complete, so that a name stands for a whole episode.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.packed import Size, unpack_rgb_into
from training.bags.episodes import EpisodeTable
from training.bags.frames import scaled_down, whole_size

MAGIC = b"FVLAEP02"
TEMPORARY_SUFFIX = ".tmp"
_TAIL_BYTES = 8 + 32 + len(MAGIC)

PictureFormat = Literal["auto", "raw", "jpeg"]
# 95 takes 40 % more space and a fifth more time to unpack; see LOG.md.
JPEG_QUALITY = 90
# A small picture costs more to unpack than to read; see docs/data.md.
_RAW_PIXELS = 128 * 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """How the pictures of a cache are stored.

    Attributes:
        format: `raw` pixels, `jpeg`, or by size (`auto`): raw up to 128 x 128. JPEG is the
            recording's own file where it has the size that is wanted.
        longest_side: Larger pictures are scaled down to it, with their aspect ratio; 0: never.
        quality: Of JPEG files that are packed anew, 1 to 100.

    Raises:
        DatasetError: there is no such quality.
    """

    format: PictureFormat = "auto"
    longest_side: int = 0
    quality: int = JPEG_QUALITY

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise DatasetError(f"JPEG quality {self.quality}", mend="give 1 to 100")

    def shape(self, *, height: int, width: int) -> tuple[int, int, int]:
        """[H, W, 3] as stored of a camera's picture."""
        longest = max(height, width)
        if not self.longest_side or longest <= self.longest_side:
            return height, width, 3
        scale = self.longest_side / longest
        return max(1, round(height * scale)), max(1, round(width * scale)), 3

    def is_jpeg(self, *, height: int, width: int) -> bool:
        """Whether a stored picture of that size is a JPEG file."""
        return self.format == "jpeg" or (self.format == "auto" and height * width > _RAW_PIXELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedEpisode:
    """One episode of a cache: its file, what is in it, and what was not used of its recording.

    Attributes:
        file: Relative to the cache.
        sha256: Of the file's content, as it also says itself.
        skipped: Why it gave nothing; there is no file then.
        split_key: In [0, 1), from the content of its recording; decides where it belongs.
    """

    file: str = ""
    bytes: int = 0
    sha256: str = ""
    frames: int = 0
    instruction: str = ""
    outcome: str | None = None
    dropped: Mapping[str, int] | None = None
    bad_messages: Mapping[str, int] | None = None
    late_messages: Mapping[str, int] | None = None
    unused_messages: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    skipped: str = ""
    failed: bool = False
    split_key: float = 0.0

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "notes", tuple(self.notes))


class ShardWriter:
    """Write one episode; a frame sink. Nothing is left of it when it is not finished.

    Args:
        path: The file to be.
        contract: Its policy cameras, in order.
    """

    def __init__(self, path: Path, *, contract: RobotContract, pictures: Pictures) -> None:
        self._path = path
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        self._cameras = contract.policy_cameras
        self._pictures = pictures
        self._places: dict[str, list[tuple[int, int]]] = {c.name: [] for c in self._cameras}
        # Of the pictures that were given, which need not have the size of the contract.
        self._shapes: dict[str, tuple[int, int, int]] = {}
        self._hash = hashlib.sha256()
        self._at = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")
        self._write(MAGIC)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # On a full disk even closing fails, because it writes what is left.
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)

    def size(self, camera: CameraSpec) -> Size:
        """Height and width in which a camera's pictures are stored."""
        if camera.kind != "color":
            return whole_size(camera)
        height, width, _ = self._pictures.shape(height=camera.height, width=camera.width)
        return height, width

    def add(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        *,
        files: Mapping[str, NDArray[np.uint8]] = MappingProxyType({}),
    ) -> None:
        """Take the pictures of the next step, uint8 [H, W, 3] RGB by camera; see `FrameSink`."""
        for camera in self._cameras:
            image, place = images.get(camera.name), (0, 0)
            if image is not None:
                place = self._picture(camera, image, file=files.get(camera.name))
            self._places[camera.name].append(place)

    def finish(self, table: EpisodeTable) -> tuple[int, str]:
        """Write the columns of the steps that are kept; the file's size and its SHA-256."""
        columns: dict[str, NDArray[Any]] = {
            "stamp_ns": table.stamp_ns.astype("<i8"),
            "tick": table.tick.astype("<i8"),
            "present": table.image_present,
            "state": table.state.astype("<f4"),
            "label": table.label.astype("<f4"),
        }
        for name, places in self._places.items():
            rows = np.asarray(places, "<i8").reshape(-1, 2)[table.row]
            columns[f"place.{name}"] = rows
        described = {}
        for name, values in columns.items():
            at = self._write(np.ascontiguousarray(values).tobytes())
            described[name] = {"at": at, "dtype": values.dtype.str, "shape": list(values.shape)}
        cameras = {camera.name: self._described(camera) for camera in self._cameras}
        text = json.dumps(
            {"columns": described, "cameras": cameras, "instruction": table.instruction}
        ).encode()
        self._write(text)
        self._write(len(text).to_bytes(8, "little"))
        digest = self._hash.digest()
        self._write(digest)
        self._write(MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)
        return self._at, digest.hex()

    def _described(self, camera: CameraSpec) -> dict[str, Any]:
        shape = self._shapes.get(
            camera.name, self._pictures.shape(height=camera.height, width=camera.width)
        )
        is_jpeg = self._pictures.is_jpeg(height=shape[0], width=shape[1])
        return {"shape": list(shape), "format": "jpeg" if is_jpeg else "raw"}

    def _picture(
        self, camera: CameraSpec, image: NDArray[np.uint8], *, file: NDArray[np.uint8] | None
    ) -> tuple[int, int]:
        shape = self._pictures.shape(height=image.shape[0], width=image.shape[1])
        is_whole = shape == image.shape
        if not is_whole:
            image = scaled_down(image, size=shape[:2])
        known = self._shapes.setdefault(camera.name, shape)
        if known != shape:
            raise DatasetError(
                f"camera '{camera.name}': a picture of {shape[1]}x{shape[0]} among ones of "
                f"{known[1]}x{known[0]}",
                mend="one episode has pictures of one size; split the recording there",
            )
        is_jpeg = self._pictures.is_jpeg(height=shape[0], width=shape[1])
        if is_jpeg and file is not None and is_whole:
            # Packed anew it would be larger, and no longer what the live node sees.
            return self._write(file.data), len(file)
        if is_jpeg:
            data = pack_jpeg(image, quality=self._pictures.quality)
        else:
            data = np.ascontiguousarray(image).reshape(-1).data
        return self._write(data), len(data)

    def _write(self, data: bytes | memoryview) -> int:
        at = self._at
        self._file.write(data)
        self._hash.update(data)
        self._at += len(data)
        return at


class Shard:
    """One episode, mapped into memory.

    Attributes:
        columns: The small ones, in memory.

    Raises:
        DatasetError: the file is missing, cut, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Slices of a plain array cost a tenth of those of a memmap.
            self._content: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, "r"))
            if len(self._content) < len(MAGIC) + _TAIL_BYTES:
                raise ValueError("it is cut")
            tail = bytes(self._content[-_TAIL_BYTES:])
            if bytes(self._content[:8]) != MAGIC or not tail.endswith(MAGIC):
                raise ValueError("it is cut, or of another format")
            size = int.from_bytes(tail[:8], "little")
            end = len(self._content) - _TAIL_BYTES
            table = json.loads(bytes(self._content[end - size : end]))
            self.columns = {name: self._column(c) for name, c in table["columns"].items()}
            self.instruction: str = table["instruction"]
            self._cameras: dict[str, dict[str, Any]] = table["cameras"]
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise _broken(path, str(error)) from error
        self.sha256 = tail[8:40].hex()

    def __len__(self) -> int:
        return len(self.columns["state"])

    def shape(self, camera: str) -> tuple[int, int, int]:
        """[H, W, 3] of a camera's pictures."""
        height, width, channels = self._cameras[camera]["shape"]
        return height, width, channels

    def is_raw(self, camera: str) -> bool:
        """Whether a camera's pictures are stored as pixels."""
        return self._cameras[camera]["format"] == "raw"

    def picture(self, camera: str, row: int) -> NDArray[np.uint8]:
        """One picture, uint8 [H, W, 3] RGB; blank where it is missing (`present` is False).

        Raises:
            DatasetError: its bytes are damaged.
        """
        pixels = np.empty(self.shape(camera), np.uint8)
        self.read_picture(camera, row, out=pixels)
        return pixels

    def read_picture(self, camera: str, row: int, *, out: NDArray[np.uint8]) -> None:
        """As `picture`, into `out`.

        Raises:
            DatasetError: its bytes are damaged.
        """
        at, size = self.columns[f"place.{camera}"][row].tolist()
        if not size:
            out[...] = 0
            return
        stored = self._content[at : at + size]
        if self.is_raw(camera) and size == out.size:
            out[...] = stored.reshape(out.shape)
        elif len(stored) != size or not unpack_rgb_into(out, stored):
            raise _broken(self.path, f"picture {row} of camera '{camera}' is damaged")

    def check(self) -> None:
        """Compare the content with the checksum in the file.

        Raises:
            DatasetError: they differ.
        """
        digest, step = hashlib.sha256(), 1 << 22
        end = len(self._content) - 32 - len(MAGIC)
        for at in range(0, end, step):
            digest.update(self._content[at : min(at + step, end)].data)
        if digest.hexdigest() != self.sha256:
            raise _broken(self.path, "its checksum is wrong")

    def _column(self, described: Mapping[str, Any]) -> NDArray[Any]:
        shape, at = tuple(described["shape"]), described["at"]
        count = int(np.prod(shape, dtype=np.int64))
        # A copy: the few bytes are read once, not page by page when batches ask for them.
        return np.frombuffer(self._content, described["dtype"], count, at).reshape(shape).copy()


def pack_jpeg(image: NDArray[np.uint8], *, quality: int = JPEG_QUALITY) -> bytes:
    """uint8 [H, W, 3] RGB as a JPEG file."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, packed = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done
    return packed.tobytes()


def _broken(path: Path, what: str) -> DatasetError:
    return DatasetError(
        f"{path}: {what}",
        mend="delete this file and run `fastvla data convert` again; only it is made anew",
    )
